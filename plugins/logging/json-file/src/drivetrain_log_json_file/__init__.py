"""Log driver for Drivetrain: JSON lines in a rotated file"""
