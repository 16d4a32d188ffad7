"""Storage driver for Drivetrain: kernel overlayfs"""
