"""Unpacking a layer into a mounted tree, in a process of its own whose root is that tree."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
from pathlib import Path

from drivetrain.errors import Exhausted, Internal, InvalidArgument
from drivetrain_engine.content import LayerStream
from drivetrain_engine.unpacker import extraction

_PROGRAM = """
import sys
sys.path.append(sys.argv.pop())
from drivetrain_engine.unpacker.extraction import main
sys.exit(main())
"""
_PACKAGES = str(Path(extraction.__file__).parents[2])
#: Bytes in the pipe to the unpacker, so that both work at once. More needs a privilege.
_PIPE = 1 << 20


def unpack(stream: LayerStream, target: Path, name: str, lock: int) -> None:
    """Unpack a layer.

    Args:
        stream: the layer.
        target: the root of the tree, mounted.
        name: of the layer, for messages.
        lock: inherited by the process, see :mod:`drivetrain.host.orphans`.

    Raises:
        InvalidArgument: the archive is no archive, or has entries that cannot be made.
        Exhausted: no space is left.
        Internal: the stored layer is damaged.
    """
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROGRAM, str(target), _PACKAGES],
        stdin=stream.plain if stream.plain is not None else subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=(lock,),
        bufsize=0,
    )
    try:
        _feed(stream, child)
        assert child.stderr is not None
        message = child.stderr.read().decode(errors="replace").strip()
        code = child.wait()
    except BaseException:
        child.kill()
        child.wait()
        raise
    finally:
        for end in (child.stdin, child.stderr):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.close()
    if code == 0:
        return
    reason = message.splitlines()[-1] if message else f"the unpacker ended with {code}"
    if "No space left" in reason or "Disk quota exceeded" in reason:
        raise Exhausted(f"layer {name} cannot be unpacked: {reason}")
    if code == extraction.DAMAGED:
        raise InvalidArgument(f"layer {name} is not a valid archive: {reason}")
    raise Internal(f"layer {name} cannot be unpacked: {reason}")


def _feed(stream: LayerStream, child: subprocess.Popen[bytes]) -> None:
    """Read the layer to its end, where its digest is compared, and write it to the child.

    A child that reads the layer's file itself is written nothing.
    """
    if child.stdin is None:
        for _ in stream.pieces():
            pass
        return
    with contextlib.suppress(OSError):
        fcntl.fcntl(child.stdin, fcntl.F_SETPIPE_SZ, _PIPE)
    with contextlib.suppress(BrokenPipeError):
        for piece in stream.pieces():
            while piece:
                piece = piece[child.stdin.write(piece) or 0 :]
    child.stdin.close()
