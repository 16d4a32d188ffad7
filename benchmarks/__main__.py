"""``python -m benchmarks [FAMILY …]``: run them and print one table."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import signal
import sys
import time
import traceback

import benchmarks.families
from benchmarks.peers import Peers
from benchmarks.table import Row, show


def _names() -> list[str]:
    return sorted(found.name for found in pkgutil.iter_modules(benchmarks.families.__path__))


def _run(name: str) -> list[Row]:
    """Run one family; a failure is a row, so that the others are still seen."""
    family = importlib.import_module(f"benchmarks.families.{name}")
    begin = time.monotonic()
    try:
        with Peers() as peers:
            rows = list(family.measure(peers))
    except Exception as error:
        traceback.print_exc()
        rows = [Row(name, "", None, note=f"FAILED: {error}")]
    print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return rows


def main() -> int:
    """Run the families that were asked for, or all.

    Returns:
        1 when one failed; a missed budget is only shown: the machine may have been busy.
    """
    # A benchmark that is told to end removes what it made, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = _names()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("family", nargs="*", choices=[*names, []], help=", ".join(names))
    chosen = parser.parse_args().family or names
    rows = [row for name in chosen for row in _run(name)]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\n{show(rows)}\n")
    print(f"{os.cpu_count()} processors, load {load}; medians of interleaved rounds")
    return 1 if any(row.note.startswith("FAILED") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
