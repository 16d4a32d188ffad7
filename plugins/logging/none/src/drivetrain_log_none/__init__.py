"""Log driver for Drivetrain: nothing is kept"""
