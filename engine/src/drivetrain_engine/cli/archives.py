"""The local side of ``cp``: packing and unpacking tar streams by the rules of cp(1)."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from drivetrain_engine.cli.errors import CliError


def pack(path: str, name: str, follow: bool) -> Iterator[bytes]:
    """Yield a tar archive of ``path`` whose top entry is called ``name``.

    Args:
        path: a file or directory.
        name: ``.``: the content of the directory.
        follow: archive what the link ``path`` leads to.
    """
    source = os.path.realpath(path) if follow else path.rstrip("/") or "/"
    reading, writing = os.pipe()
    faults: list[Exception] = []

    def work() -> None:
        try:
            with open(writing, "wb") as pipe:
                with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                    archive.add(source, arcname=name)
        except Exception as error:
            faults.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    with open(reading, "rb", buffering=0) as pipe:
        while data := pipe.read(1 << 16):
            yield data
    thread.join()
    if faults and not isinstance(faults[0], BrokenPipeError):
        raise CliError(f"cannot read {path}: {faults[0]}") from faults[0]


class _Reader:
    """The pieces of a stream as a file for tarfile."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.buffer = b""

    def read(self, size: int) -> bytes:
        while len(self.buffer) < size:
            piece = next(self.pieces, b"")
            if not piece:
                break
            self.buffer += piece
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data


def unpack(pieces: Iterator[bytes], path: str, stat: dict[str, Any], target: str) -> None:
    """Unpack what came for ``path`` to the local ``target``.

    Args:
        pieces: the tar stream; its top entry is named after ``path``.
        path: in the container.
        stat: of ``path``.
        target: an existing directory (it goes into it), or the new name.

    Raises:
        CliError: the parent directory does not exist, or a directory would replace a file.
    """
    is_directory = bool(int(stat.get("mode", 0)) & (1 << 31))
    old = str(stat.get("name") or os.path.basename(path.rstrip("/"))).strip("/")
    contents = path.endswith("/.") or path.rstrip("/") in ("", ".")
    if os.path.isdir(target):
        base, new = target, "" if contents else old
    elif os.path.lexists(target) and is_directory:
        raise CliError(f"cannot copy directory {path} to file {target}")
    else:
        clean = target.rstrip("/")
        base, new = os.path.dirname(clean) or ".", os.path.basename(clean)
        if not os.path.isdir(base):
            raise CliError(f"invalid output path: directory {os.path.abspath(base)} does not exist")
        if target.endswith("/") and not is_directory:
            raise CliError(f"the destination directory {target} does not exist")
    reader = cast(BinaryIO, _Reader(pieces))
    with tarfile.open(fileobj=reader, mode="r|") as archive:
        for member in archive:
            top, _, rest = member.name.lstrip("/").partition("/")
            if top not in (old, ".", ""):
                rest = member.name
            renamed = os.path.normpath(os.path.join(new, rest))
            if renamed.startswith(".."):
                raise CliError(f"the archive has an entry outside of itself: {member.name}")
            if renamed == "." and os.path.isdir(base):
                continue
            _extract(archive, member, renamed, base, old, new)


def _extract(
    archive: tarfile.TarFile, member: tarfile.TarInfo, renamed: str, base: str, old: str, new: str
) -> None:
    """Extract one entry, below ``base`` whatever the archive says.

    Hard links name an earlier entry, which has a new name by now too.
    """
    member.name = renamed
    if member.islnk():
        top, _, rest = member.linkname.lstrip("/").partition("/")
        member.linkname = (
            os.path.normpath(os.path.join(new, rest)) if top == old else member.linkname
        )
    try:
        archive.extract(member, base, filter=_keep)
    except tarfile.FilterError as error:
        raise CliError(f"refusing {member.name}: {error}") from error


def _keep(member: tarfile.TarInfo, base: str) -> tarfile.TarInfo | None:
    """Check as for untrusted archives, but keep links and modes as they are in the container."""
    if member.issym():
        root = os.path.realpath(base)
        parent = os.path.realpath(os.path.join(base, os.path.dirname(member.name)))
        if os.path.commonpath((root, parent)) != root:
            raise tarfile.OutsideDestinationError(member, parent)
        return member.replace(uid=os.getuid(), gid=os.getgid(), deep=False)
    return tarfile.tar_filter(member, base).replace(
        uid=os.getuid(), gid=os.getgid(), uname="", gname="", deep=False
    )
