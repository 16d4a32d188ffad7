"""``python -m drivetrain_engine.daemon --flag value …``: the daemon without the command line."""

from __future__ import annotations

import argparse
import sys

from drivetrain_engine.daemon.directives import DIRECTIVES
from drivetrain_engine.daemon.main import run


def main() -> int:
    """Parse flags by their table, and run."""
    parser = argparse.ArgumentParser(prog="engine-daemon", allow_abbrev=False)
    for directive in DIRECTIVES:
        name = f"--{directive.flag_name}"
        if directive.kind in ("list", "map", "ulimits", "runtimes", "pools"):
            parser.add_argument(name, action="append", help=directive.help)
        elif directive.kind == "flag":
            parser.add_argument(name, nargs="?", const="true", help=directive.help)
        else:
            parser.add_argument(name, help=directive.help)
    given = vars(parser.parse_args())
    return run({name: value for name, value in given.items() if value is not None})


if __name__ == "__main__":
    sys.exit(main())
