"""Storage driver for Drivetrain: plain copies"""
