"""The container engine of Drivetrain: daemon, HTTP API and the command line"""
