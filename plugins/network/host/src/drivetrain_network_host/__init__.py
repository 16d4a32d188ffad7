"""Network driver for Drivetrain: the host's own network"""
