"""Running the daemon in this process."""

from __future__ import annotations

import sys


def run_daemon(given: dict[str, object]) -> None:
    """Run the daemon until it is told to stop.

    Args:
        given: the flags on the command line, by ``daemon.json`` key.
    """
    from drivetrain_engine.daemon.main import run

    sys.exit(run(given))  # with the usual end of a process, unlike the client's
