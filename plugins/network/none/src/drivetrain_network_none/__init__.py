"""Network driver for Drivetrain: no network"""
