"""Unpacking a layer into a mounted tree, in a process of its own whose root is that tree."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from drivetrain.errors import Exhausted, Internal, InvalidArgument
from drivetrain_engine.layers import extract

CHUNK = 1 << 20


def unpack(stream: BinaryIO, target: Path, name: str, lock: int) -> None:
    """Unpack an inflated tar.

    Args:
        stream: verifies its own digest at its end.
        target: the root of the tree, mounted.
        name: of the layer, for messages.
        lock: inherited by the process, see :mod:`drivetrain.host.orphans`.

    Raises:
        InvalidArgument: the archive is no archive, or has entries that cannot be made.
        Exhausted: no space is left.
        Internal: the stored layer is damaged.
    """
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", extract.__file__, str(target)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=(lock,),
    )
    assert child.stdin is not None and child.stderr is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            while block := stream.read(CHUNK):
                child.stdin.write(block)
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        message = child.stderr.read().decode(errors="replace").strip()
        code = child.wait()
    except BaseException:
        child.kill()
        child.wait()
        raise
    finally:
        with contextlib.suppress(OSError):
            child.stdin.close()
        child.stderr.close()
    if code == 0:
        return
    reason = message.splitlines()[-1] if message else f"the unpacker ended with {code}"
    if "No space left" in reason or "Disk quota exceeded" in reason:
        raise Exhausted(f"layer {name} cannot be unpacked: {reason}")
    if reason.startswith(("TarError", "ReadError", "ValueError", "HeaderError")):
        raise InvalidArgument(f"layer {name} is not a valid archive: {reason}")
    raise Internal(f"layer {name} cannot be unpacked: {reason}")
