"""``python -m drivetrain_engine.cli``: what the command line itself starts daemons with."""

from drivetrain_engine.cli.main import main

main()
