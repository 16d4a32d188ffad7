"""A root file system for tests, made from the host's busybox: no image has to be downloaded."""

from __future__ import annotations

import functools
import io
import subprocess
import tarfile
from pathlib import Path

BUSYBOX = Path("/bin/busybox")

_FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n"
    b"daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    b"nobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": b"root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n",
}
_DIRECTORIES = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o555, "root": 0o700,
    "sbin": 0o755, "sys": 0o555, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755,
    "usr/sbin": 0o755, "var": 0o755, "var/tmp": 0o1777,
}  # fmt: skip


@functools.cache
def busybox_tar() -> bytes:
    """Return the tar of a root file system: a static busybox with links for all its commands.

    It has /etc/passwd and /etc/group, /tmp with mode 1777, and the same bytes at every call.

    Raises:
        FileNotFoundError: the host lacks /bin/busybox (``apt-get install busybox-static``).
    """
    if not BUSYBOX.exists():
        raise FileNotFoundError(f"{BUSYBOX} is missing: apt-get install busybox-static")
    listed = subprocess.run(
        [BUSYBOX, "--list-full"], check=True, capture_output=True, text=True
    ).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, mode in sorted(_DIRECTORIES.items()):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        for name, content in _FILES.items():
            _add_file(archive, name, content, 0o644)
        _add_file(archive, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
        names = {"bin/busybox"}
        for applet in sorted({*(path.lstrip("/") for path in listed), "bin/sh"}):
            folder = applet.rpartition("/")[0]
            name = applet if folder in _DIRECTORIES else "bin/" + applet.rpartition("/")[2]
            if name in names:
                continue
            names.add(name)
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.linkname = tarfile.SYMTYPE, 0o777, "/bin/busybox"
            archive.addfile(entry)
    return buffer.getvalue()


def _add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
