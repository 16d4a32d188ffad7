"""Network driver for Drivetrain: Linux bridges and nftables"""
