"""How the API's Mount objects and ``--tmpfs`` are read. Validation and wording are Docker's.

Nothing here touches the host, except that the source of a bind mount must exist.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import Any

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain.host import idmaps
from drivetrain.options import parse_size
from drivetrain_engine.volumes.spec import (
    PROPAGATIONS,
    ParsedMount,
    check_name,
    check_subpath,
    check_target,
)

_TMPFS_FLAGS = frozenset(
    {"ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "async"}
    | {"dirsync", "remount", "mand", "nomand", "atime", "noatime", "diratime", "nodiratime"}
    | {"bind", "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared"}
    | {"slave", "rslave", "relatime", "norelatime", "strictatime", "nostrictatime", "defaults"}
)
_TMPFS_KEYS = frozenset({"mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"})


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
        target = check_target(_text(body, "Target"))
        for field, owners in _OPTION_FIELDS.items():
            if body.get(field) and kind not in owners:
                raise InvalidArgument(f"field {field} must not be specified")
        return _with_idmap(parsers[kind](body, target), _text(body, "IDMap"))
    except InvalidArgument as error:
        raise InvalidArgument(f'invalid mount config for type "{kind}": {error}') from None


def _with_idmap(mount: ParsedMount, idmap: str) -> ParsedMount:
    """Add ``IDMap``, which is ours and not Docker's."""
    if not idmap:
        return mount
    if mount.type not in ("bind", "volume"):
        raise InvalidArgument("field IDMap must not be specified")
    idmaps.parse(idmap)
    return msgspec.structs.replace(mount, idmap=idmap)


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
        subpath=check_subpath(subpath),
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
    subpath = check_subpath(_text(_object(body, "ImageOptions"), "Subpath"))
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
    clean = check_target(target)
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
