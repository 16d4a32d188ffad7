"""Mounts in one form, and how ``-v a:/b:ro`` is read. Validation and wording are Docker's."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from drivetrain.errors import InvalidArgument

MountType = Literal["bind", "volume", "tmpfs", "image"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_CONSISTENCIES = frozenset({"consistent", "cached", "delegated"})
_LABELS = frozenset({"z", "Z"})


class ParsedMount(msgspec.Struct, frozen=True, kw_only=True):
    """One mount that a container is to have.

    Attributes:
        type: ``bind``, ``volume``, ``tmpfs`` or ``image``.
        source: path on the host; name of the volume (empty: an anonymous one); name of the
            image; empty for tmpfs.
        target: absolute, normalised path in the container.
        read_only: the container may not write.
        mode: the mode as written in a ``-v``, for ``Mode`` of inspect.
        propagation: of a bind mount; empty: the default, ``rprivate``.
        no_copy: do not copy the image's content into an empty volume.
        subpath: relative directory of a volume or image; empty: all of it.
        driver: volume driver asked for; empty: whichever the volume has, ``local`` for a new one.
        driver_options: for a volume that has to be made.
        labels: likewise.
        tmpfs_size: bytes; 0: the kernel's default.
        tmpfs_mode: permissions of the root; ``None``: 1777.
        tmpfs_options: further mount options.
        create_mountpoint: make a missing source of a bind mount, a directory.
        non_recursive: leave out what is mounted below the source.
        read_only_non_recursive: what is mounted below may stay writable.
        idmap: which owners are shown as which, see :func:`drivetrain.host.idmaps.parse`.
        read_only_force_recursive: refuse when what is mounted below cannot be made read-only.
    """

    type: MountType
    source: str = ""
    target: str
    read_only: bool = False
    mode: str = ""
    propagation: str = ""
    no_copy: bool = False
    subpath: str = ""
    driver: str = ""
    driver_options: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    tmpfs_size: int = 0
    tmpfs_mode: int | None = None
    tmpfs_options: tuple[str, ...] = ()
    create_mountpoint: bool = False
    non_recursive: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    idmap: str = ""

    @property
    def anonymous(self) -> bool:
        """A volume without a name."""
        return self.type == "volume" and not self.source


def check_name(name: str) -> None:
    """Check the name of a volume.

    Raises:
        InvalidArgument: it cannot be one.
    """
    if len(name) == 1:
        raise InvalidArgument(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )


def parse_mode(mode: str) -> dict[str, str]:
    """Take the mode of a ``-v`` apart: ``ro``, propagation, ``nocopy``, and what is ignored.

    Returns:
        ``access``, ``propagation``, ``copy``, ``consistency`` and ``label``, where given.

    Raises:
        InvalidArgument: an unknown word, or two of one kind.
    """
    found: dict[str, str] = {}
    if not mode:
        return found
    for word in mode.split(","):
        if word in ("ro", "rw"):
            kind = "access"
        elif word in PROPAGATIONS:
            kind = "propagation"
        elif word == "nocopy":
            kind = "copy"
        elif word in _CONSISTENCIES:
            kind = "consistency"
        elif word in _LABELS:
            kind = "label"
        else:
            kind = ""
        if not kind or kind in found:
            raise InvalidArgument(f"invalid mode: {mode}")
        found[kind] = word
    return found


def _is_mode(text: str) -> bool:
    try:
        return bool(parse_mode(text))
    except InvalidArgument:
        return False


def check_target(target: str) -> str:
    """Return the normalised path of a target in the container.

    Raises:
        InvalidArgument: it is not absolute, or the root.
    """
    if not target:
        raise InvalidArgument("field Target must not be empty")
    clean = posixpath.normpath(target)
    if clean in ("/", "//", "."):
        raise InvalidArgument("invalid specification: destination can't be '/'")
    if not target.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{target}' mount path must be absolute")
    return "/" + clean.lstrip("/")


def check_subpath(subpath: str) -> str:
    """Return a normalised subpath, empty for all of the volume.

    Raises:
        InvalidArgument: it leads out of the volume.
    """
    if not subpath:
        return ""
    clean = posixpath.normpath(subpath)
    if subpath.startswith("/") or clean == ".." or clean.startswith("../"):
        raise InvalidArgument("subpath must be a relative path within the volume")
    return "" if clean == "." else clean


def parse_bind(text: str, volume_driver: str = "") -> ParsedMount:
    """Return what a ``-v`` or an entry of ``HostConfig.Binds`` means.

    Args:
        text: ``/target``, ``source:/target`` or ``source:/target:mode``.
        volume_driver: of ``HostConfig.VolumeDriver``, for volumes.

    Raises:
        InvalidArgument: in Docker's words.
    """
    parts = text.split(":", 3)
    if len(parts) > 3 or not parts[0]:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, target, mode = "", parts[0], ""
    if len(parts) > 1:
        source, target = parts[0], parts[1]
        # /path:ro is no mount of anything at "ro"
        if len(parts) == 2 and _is_mode(target):
            raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 3:
        mode = parts[2]
    found = parse_mode(mode)
    kind: MountType = "bind" if source.startswith("/") else "volume"
    try:
        return _bind_of(kind, source, target, mode, found, volume_driver)
    except InvalidArgument as error:
        if source and kind == "volume" and "includes invalid" in str(error):
            raise
        raise InvalidArgument(
            f"invalid volume specification: '{text}': "
            f'invalid mount config for type "{kind}": {error}'
        ) from None


def _bind_of(
    kind: MountType, source: str, target: str, mode: str, found: dict[str, str], driver: str
) -> ParsedMount:
    clean = check_target(target)
    read_only = found.get("access") == "ro"
    if kind == "bind":
        if "copy" in found:
            raise InvalidArgument("field VolumeOptions must not be specified")
        return ParsedMount(
            type=kind,
            source=posixpath.normpath(source),
            target=clean,
            read_only=read_only,
            mode=mode,
            propagation=found.get("propagation", ""),
            create_mountpoint=True,
        )
    if "propagation" in found:
        raise InvalidArgument("field BindOptions must not be specified")
    if source:
        check_name(source)
    return ParsedMount(
        type=kind,
        source=source,
        target=clean,
        read_only=read_only,
        mode=mode,
        no_copy="copy" in found,
        driver=driver,
    )
