"""``top``: the host's ``ps``, with the container's processes only."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

from drivetrain.errors import Internal, InvalidArgument
from drivetrain_engine.containers.spec.cgroups import host_cgroups


def processes(group: str, ps_args: str) -> dict[str, Any]:
    """Return ``ContainerTopResponse``.

    Args:
        group: the container's cgroup.
        ps_args: options of ps(1); its output must have a column PID.

    Raises:
        InvalidArgument: ps does not understand them, or shows no PID.
    """
    pids = {str(pid) for pid in host_cgroups().pids(group)}
    words = shlex.split(ps_args) or ["-ef"]
    try:
        done = subprocess.run(["ps", *words], capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise Internal("top needs ps on the host: install procps") from None
    if done.returncode:
        raise InvalidArgument(f"ps: {(done.stderr or done.stdout).strip()}")
    lines = done.stdout.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column] in pids:
            rows.append(fields)
    return {"Titles": titles, "Processes": rows}
