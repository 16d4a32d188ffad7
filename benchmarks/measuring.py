"""Taking turns, and medians."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

#: Seconds that one command may take.
PATIENCE = 300.0

Measured = Callable[[], float | None]


def interleave(works: Mapping[str, Measured], rounds: int, warm: int = 1) -> dict[str, float]:
    """Run every work once a round, in turn, and return the median seconds of each.

    Args:
        works: by name; a work that returns a number has taken the time itself.
        rounds: that count.
        warm: rounds before them, which do not.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warm + rounds):
        for name, work in works.items():
            begin = time.perf_counter()
            own = work()
            spent = time.perf_counter() - begin if own is None else own
            if turn >= warm:
                taken[name].append(spent)
    return {name: statistics.median(values) for name, values in taken.items()}


def command(arguments: Sequence[str], data: bytes = b"") -> str:
    """Run a command and return its output.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    done = subprocess.run(arguments, input=data, capture_output=True, timeout=PATIENCE)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"{' '.join(arguments)}: exit code {done.returncode}: {said}")
    return done.stdout.decode(errors="replace")


def calling(arguments: Sequence[str]) -> Measured:
    """Return a work: the command, from its start to its end, with its output thrown away."""

    def work() -> None:
        done = subprocess.run(
            arguments,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise RuntimeError(f"{' '.join(arguments)}: exit code {done.returncode}: {said}")

    return work


def milliseconds(seconds: float | None) -> float | None:
    """Turn seconds into milliseconds; what was not measured stays so."""
    return None if seconds is None else seconds * 1000
