"""What a shim that was killed leaves behind, and clearing it away.

With its shim a container has lost its streams, so it ends as well. The shim may have been killed in
the middle of a call of the OCI runtime: then a half-made container and the runtime's state are
there, but no note of the shim's.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
from pathlib import Path

from drivetrain_engine.containers import runtimes

#: Seconds that a killed process has to be gone.
_PATIENCE = 10.0


def clear(container_id: str, folder: Path, runtime_root: Path) -> bool:
    """Kill and remove what is left of a container whose shim is gone.

    Args:
        container_id: its id.
        folder: the shim's own.
        runtime_root: where the runtime keeps its state.

    Returns:
        whether there was anything.
    """
    state = runtime_root / container_id
    if not folder.exists() and not state.exists():
        return False
    # First: a runtime that goes on would make anew what is removed here.
    quiet = 0
    while quiet < 2:
        # Twice: one that forks after the list was read, and dies before it is looked at, hides
        # its child from the first look.
        quiet = 0 if _kill_helpers(container_id) else quiet + 1
    runtime = ""
    with contextlib.suppress(OSError, ValueError, KeyError):
        note = json.loads((folder / "note.json").read_text())
        runtime = note["runtime"]
        _kill_born(note["pid"], note["birth"])
    if state.exists():
        runtimes.delete(runtime or runtimes.find(), runtime_root, container_id)
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _kill_helpers(container_id: str) -> int:
    """Kill the shim and the calls of the runtime for one container; returns how many there were."""
    found = 0
    word, name = container_id.encode(), f"shim:{container_id[:10]}\n".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(int(entry))
            try:
                # Read with the handle open: the number cannot pass to another process unseen.
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                runtime = word in words and b"--root" in words
                if runtime or Path(f"/proc/{entry}/comm").read_bytes() == name:
                    _kill(handle)
                    found += 1
            finally:
                os.close(handle)
    return found


def _kill_born(pid: int, birth: int) -> None:
    """Kill a process unless its number belongs to another one by now."""
    with contextlib.suppress(OSError, ValueError):
        handle = os.pidfd_open(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            if int(stat.rpartition(")")[2].split()[19]) == birth:
                _kill(handle)
        finally:
            os.close(handle)


def _kill(handle: int) -> None:
    """Kill the process of a pidfd and wait for its end."""
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    select.select([handle], [], [], _PATIENCE)
