"""Which OCI runtime runs the containers of this host."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

from drivetrain.errors import NotSupported
from drivetrain_engine.containers.shim.runtime import UNIFIED

#: crun starts a container in half of runc's time.
PREFERRED = ("crun", "runc")


@functools.cache
def hybrid() -> bool:
    """Whether this host has the v2 tree of cgroups beside those of v1."""
    return os.path.ismount(UNIFIED) and os.path.ismount("/sys/fs/cgroup/memory")


def needs_private_cgroups(runtime: str) -> bool:
    """Whether the runtime refuses hybrid hosts, as crun does, unless it does not see them."""
    return hybrid() and Path(runtime).name.startswith("crun")


@functools.cache
def find(name: str = "") -> str:
    """Return the path of a runtime that answers.

    Args:
        name: a name or path; empty: the quickest one there is.

    Raises:
        NotSupported: there is none; says what to install.
    """
    for candidate in (name,) if name else PREFERRED:
        path = shutil.which(candidate)
        if path is None:
            continue
        answer = subprocess.run([path, "--version"], capture_output=True, check=False)
        if answer.returncode == 0:
            return path
    wanted = name or " or ".join(PREFERRED)
    raise NotSupported(f"no OCI runtime {wanted} on this host: apt-get install crun")


def delete(runtime: str, root: Path, container_id: str) -> None:
    """Remove what a runtime keeps of a container, killing it first."""
    command = [runtime, "--root", str(root), "delete", "--force", container_id]
    if needs_private_cgroups(runtime):
        parent = os.path.dirname(UNIFIED)
        script = f'mount --make-private {parent} && umount -l {UNIFIED} && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, "sh", *command]
    subprocess.run(command, capture_output=True, check=False, timeout=60)
    shutil.rmtree(root / container_id, ignore_errors=True)
