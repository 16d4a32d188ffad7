"""Mounts as users ask for them: ``-v a:/b:ro`` and the API's Mount objects, made one form.

Validation and wording are Docker's. Nothing here touches the host, except that the source of a
bind mount of the Mount form must exist.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from drivetrain.errors import InvalidArgument
from drivetrain.options import parse_size

MountType = Literal["bind", "volume", "tmpfs", "image"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_CONSISTENCIES = frozenset({"consistent", "cached", "delegated"})
_LABELS = frozenset({"z", "Z"})
_TMPFS_FLAGS = frozenset(
    {"ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "async"}
    | {"dirsync", "remount", "mand", "nomand", "atime", "noatime", "diratime", "nodiratime"}
    | {"bind", "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared"}
    | {"slave", "rslave", "relatime", "norelatime", "strictatime", "nostrictatime", "defaults"}
)
_TMPFS_KEYS = frozenset({"mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"})


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


def _check_target(target: str) -> str:
    if not target:
        raise InvalidArgument("field Target must not be empty")
    clean = posixpath.normpath(target)
    if clean in ("/", "//", "."):
        raise InvalidArgument("invalid specification: destination can't be '/'")
    if not target.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{target}' mount path must be absolute")
    return "/" + clean.lstrip("/")


def _check_subpath(subpath: str) -> str:
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
    clean = _check_target(target)
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


def parse_mount(body: Mapping[str, Any]) -> ParsedMount:
    """Return what a Mount object of the API means.

    Args:
        body: an element of ``HostConfig.Mounts``.

    Raises:
        InvalidArgument: in Docker's words.
    """
    kind = body.get("Type") or ""
    parsers = {
        "bind": _parse_bind_mount,
        "volume": _parse_volume_mount,
        "tmpfs": _parse_tmpfs_mount,
        "image": _parse_image_mount,
    }
    try:
        if kind not in parsers:
            raise InvalidArgument("mount type unknown")
        target = _check_target(_text(body, "Target"))
        for field, owners in _OPTION_FIELDS.items():
            if body.get(field) and kind not in owners:
                raise InvalidArgument(f"field {field} must not be specified")
        return parsers[kind](body, target)
    except InvalidArgument as error:
        raise InvalidArgument(f'invalid mount config for type "{kind}": {error}') from None


_OPTION_FIELDS = {
    "BindOptions": ("bind",),
    "VolumeOptions": ("volume",),
    "TmpfsOptions": ("tmpfs",),
    "ImageOptions": ("image",),
}


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgument(f"field {key} must be a string")
    return value


def _object(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"field {key} must be an object")
    return value


def _texts(body: Mapping[str, Any], key: str) -> dict[str, str]:
    value = _object(body, key)
    if not all(isinstance(item, str) for item in value.values()):
        raise InvalidArgument(f"field {key} must be an object of strings")
    return dict(value)


def _parse_bind_mount(body: Mapping[str, Any], target: str) -> ParsedMount:
    source = _text(body, "Source")
    options = _object(body, "BindOptions")
    propagation = _text(options, "Propagation")
    if not source:
        raise InvalidArgument("field Source must not be empty")
    if propagation and propagation not in PROPAGATIONS:
        raise InvalidArgument(f"invalid propagation mode: {propagation}")
    if not source.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{source}' mount path must be absolute")
    create = bool(options.get("CreateMountpoint"))
    if not create and not os.path.lexists(source):
        raise InvalidArgument(f"bind source path does not exist: {source}")
    read_only = bool(body.get("ReadOnly"))
    non_recursive = bool(options.get("ReadOnlyNonRecursive"))
    force = bool(options.get("ReadOnlyForceRecursive"))
    if non_recursive and not read_only:
        raise InvalidArgument("mount source is ReadOnlyNonRecursive but not ReadOnly")
    if force and not read_only:
        raise InvalidArgument("mount source is ReadOnlyForceRecursive but not ReadOnly")
    if force and non_recursive:
        raise InvalidArgument("ReadOnlyForceRecursive and ReadOnlyNonRecursive conflict")
    return ParsedMount(
        type="bind",
        source=posixpath.normpath(source),
        target=target,
        read_only=read_only,
        propagation=propagation,
        create_mountpoint=create,
        non_recursive=bool(options.get("NonRecursive")),
        read_only_non_recursive=non_recursive,
        read_only_force_recursive=force,
    )


def _parse_volume_mount(body: Mapping[str, Any], target: str) -> ParsedMount:
    source = _text(body, "Source")
    options = _object(body, "VolumeOptions")
    driver = _object(options, "DriverConfig")
    read_only = bool(body.get("ReadOnly"))
    subpath = _text(options, "Subpath")
    if source:
        check_name(source)
    elif read_only:
        raise InvalidArgument("must not set ReadOnly mode when using anonymous volumes")
    elif subpath:
        raise InvalidArgument("must not set Subpath when using anonymous volumes")
    return ParsedMount(
        type="volume",
        source=source,
        target=target,
        read_only=read_only,
        no_copy=bool(options.get("NoCopy")),
        subpath=_check_subpath(subpath),
        driver=_text(driver, "Name"),
        driver_options=_texts(driver, "Options"),
        labels=_texts(options, "Labels"),
    )


def _parse_tmpfs_mount(body: Mapping[str, Any], target: str) -> ParsedMount:
    options = _object(body, "TmpfsOptions")
    if body.get("Source"):
        raise InvalidArgument("field Source must not be specified")
    size, mode = options.get("SizeBytes") or 0, options.get("Mode")
    if not isinstance(size, int) or size < 0:
        raise InvalidArgument("field TmpfsOptions.SizeBytes must be a number of bytes")
    if mode is not None and (not isinstance(mode, int) or not 0 <= mode <= 0o7777):
        raise InvalidArgument("field TmpfsOptions.Mode must be file permissions")
    further = []
    for pair in options.get("Options") or []:
        word = "=".join(str(part) for part in pair) if isinstance(pair, list) else str(pair)
        _check_tmpfs_option(word)
        further.append(word)
    return ParsedMount(
        type="tmpfs",
        target=target,
        read_only=bool(body.get("ReadOnly")),
        tmpfs_size=size,
        tmpfs_mode=mode or None,
        tmpfs_options=tuple(further),
    )


def _parse_image_mount(body: Mapping[str, Any], target: str) -> ParsedMount:
    source = _text(body, "Source")
    if not source:
        raise InvalidArgument("field Source must not be empty")
    subpath = _check_subpath(_text(_object(body, "ImageOptions"), "Subpath"))
    return ParsedMount(type="image", source=source, target=target, read_only=True, subpath=subpath)


def _check_tmpfs_option(word: str) -> None:
    key, equals, value = word.partition("=")
    if word in _TMPFS_FLAGS:
        return
    if not equals or key not in _TMPFS_KEYS or not value:
        raise InvalidArgument(f"invalid tmpfs option {word!r}")


def parse_tmpfs(target: str, options: str = "") -> ParsedMount:
    """Return what ``--tmpfs`` or an entry of ``HostConfig.Tmpfs`` means.

    Args:
        target: in the container.
        options: such as ``size=64m,mode=1777,exec``.

    Raises:
        InvalidArgument: in Docker's words.
    """
    clean = _check_target(target)
    size, mode, read_only, further = 0, None, False, []
    for word in (word for word in options.split(",") if word):
        _check_tmpfs_option(word)
        key, _, value = word.partition("=")
        try:
            if key == "size" and not value.endswith("%"):
                size = parse_size(value)
            elif key == "mode":
                mode = int(value, 8)
            elif word in ("ro", "rw"):
                read_only = word == "ro"
            else:
                further.append(word)
        except ValueError as error:
            raise InvalidArgument(f"invalid tmpfs option {word!r}: {error}") from error
    return ParsedMount(
        type="tmpfs",
        target=clean,
        read_only=read_only,
        mode=options,
        tmpfs_size=size,
        tmpfs_mode=mode,
        tmpfs_options=tuple(further),
    )
