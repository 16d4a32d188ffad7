"""Volume driver for Drivetrain: directories and mounts of this host"""
