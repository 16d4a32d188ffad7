"""Unpacks the tar of one layer; a program of its own, run by :mod:`.unpacking`.

It changes its root into the layer before it looks at the first name: whatever a hostile archive
holds, nothing outside can be reached. Reads the inflated tar on standard input. Only the standard
library is imported, and nothing of the engine, so that it starts quickly.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tarfile

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
XATTR = "SCHILY.xattr."
#: Bytes at a time: larger buffers go back to the system each time, and their pages come anew.
PIECE = 1 << 16


class Extraction:
    """One archive onto the tree that is the root now."""

    def __init__(self) -> None:
        self._folders: dict[str, tarfile.TarInfo] = {}
        self._made: set[str] = set()

    def run(self, archive: tarfile.TarFile) -> None:
        """Extract everything, then set the times of the directories."""
        for member in archive:
            name = os.path.normpath("/" + member.name)
            folder, base = os.path.split(name)
            if base == OPAQUE:
                self._clear(folder)
            elif base.startswith(WHITEOUT):
                remove(os.path.join(folder, base[len(WHITEOUT) :]))
            else:
                self._extract(archive, member, name)
        for name, member in reversed(self._folders.items()):
            set_times(name, member)

    def _clear(self, folder: str) -> None:
        """Remove what parents have in a directory; what this archive made stays."""
        if os.path.isdir(folder) and not os.path.islink(folder):
            for entry in os.listdir(folder):
                path = os.path.join(folder, entry)
                if path not in self._made:
                    remove(path)

    def _extract(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        folder = os.path.dirname(name)
        if folder not in self._made:
            os.makedirs(folder, mode=0o755, exist_ok=True)
        self._made.add(name)
        if member.isdir():
            self._folder(member, name)
            return
        if name == "/":
            raise ValueError("the root of a layer must be a directory")
        remove(name)
        if member.islnk():
            os.link(os.path.normpath("/" + member.linkname), name, follow_symlinks=False)
            return
        self._create(archive, member, name)
        own(name, member)
        set_times(name, member)

    def _folder(self, member: tarfile.TarInfo, name: str) -> None:
        if not os.path.isdir(name) or os.path.islink(name):
            remove(name)
            os.mkdir(name)
        own(name, member)
        self._made.add(name)
        self._folders[name] = member

    @staticmethod
    def _create(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        if member.issym():
            os.symlink(member.linkname, name)
        elif member.isfifo():
            os.mkfifo(name, 0o600)
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor))
        elif member.isreg():
            source = archive.extractfile(member)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(name, flags, 0o600), "wb", buffering=0) as target:
                if source is not None:
                    shutil.copyfileobj(source, target, PIECE)
        else:
            raise ValueError(f"entry {member.name!r} has the unknown type {member.type!r}")


def own(name: str, member: tarfile.TarInfo) -> None:
    """Set owner, extended attributes and mode; a change of owner clears the set-id bits."""
    os.lchown(name, member.uid, member.gid)
    for key, value in member.pax_headers.items():
        if key.startswith(XATTR):
            set_attribute(name, key[len(XATTR) :], value)
    if not member.issym():
        os.chmod(name, member.mode & 0o7777)


def set_attribute(name: str, key: str, value: str) -> None:
    """Set one extended attribute; those of security modules that are absent here are left out."""
    if key.startswith("trusted.overlay."):
        return  # it would change what overlayfs shows, and no layer has a reason to
    try:
        os.setxattr(name, key, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
    except OSError as error:
        if key.startswith(("security.capability", "user.", "system.posix_acl")):
            raise OSError(error.errno, f"{error.strerror}: {key}", name) from error


def set_times(name: str, member: tarfile.TarInfo) -> None:
    """Set the time of modification, in nanoseconds where the archive has them."""
    whole, _, rest = str(member.pax_headers.get("mtime", "")).partition(".")
    if whole.lstrip("-").isdigit():
        moment = int(whole) * 1_000_000_000
        part = int(rest[:9].ljust(9, "0") or 0)
        moment += -part if whole.startswith("-") else part
    else:
        moment = int(member.mtime * 1_000_000_000)
    os.utime(name, ns=(moment, moment), follow_symlinks=False)


def remove(name: str) -> None:
    """Remove whatever is there."""
    try:
        entry = os.lstat(name)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(entry.st_mode):
        shutil.rmtree(name)
    else:
        os.unlink(name)


def main() -> int:
    """Extract standard input into the directory named; say on standard error why not."""
    os.umask(0)
    os.chroot(sys.argv[1])
    os.chdir("/")
    try:
        with tarfile.open(
            fileobj=sys.stdin.buffer, mode="r|", bufsize=PIECE, encoding="utf-8",
            errors="surrogateescape",
        ) as archive:  # fmt: skip
            Extraction().run(archive)
        while sys.stdin.buffer.read(1 << 20):
            pass  # padding: the sender verifies the digest of all of it
    except (OSError, tarfile.TarError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
