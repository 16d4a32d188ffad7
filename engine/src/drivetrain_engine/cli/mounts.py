"""``--volume``, ``--mount``, ``--tmpfs``, ``--device``: what the container sees of the host."""

from __future__ import annotations

import os
from collections.abc import Sequence

from drivetrain_engine.cli.errors import UsageError
from drivetrain_engine.cli.values import parse_size

Json = dict[str, object]

_NAMES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "volume-opt": "volume-opt",
}
_BIND = {"bind-propagation", "bind-nonrecursive", "bind-recursive", "bind-create-src"}
_VOLUME = {"volume-driver", "volume-opt", "volume-label", "volume-nocopy", "volume-subpath"}
_TMPFS = {"tmpfs-size", "tmpfs-mode"}
_ALL = {"bind": _BIND, "volume": _VOLUME, "tmpfs": _TMPFS, "image": {"image-subpath"}}


def volume_settings(given: Sequence[str]) -> tuple[list[str], dict[str, Json]]:
    """Return Binds and (for anonymous volumes) Volumes of all ``--volume``."""
    binds: list[str] = []
    volumes: dict[str, Json] = {}
    for text in given:
        source, separator, rest = text.partition(":")
        if not text or (separator and not source):
            raise UsageError(f"invalid volume {text!r}: [source:]target[:options]")
        if not separator:
            if not text.startswith("/"):
                raise UsageError(f"invalid volume {text!r}: the path in the container is absolute")
            volumes[text] = {}
            continue
        if source.startswith((".", "~")):
            source = os.path.abspath(os.path.expanduser(source))
        binds.append(f"{source}:{rest}")
    return binds, volumes


def tmpfs_settings(given: Sequence[str]) -> dict[str, str]:
    """Return Tmpfs of all ``--tmpfs path[:options]``."""
    found: dict[str, str] = {}
    for text in given:
        path, _, options = text.partition(":")
        if not path.startswith("/"):
            raise UsageError(f"invalid tmpfs {text!r}: the path in the container is absolute")
        found[path] = options
    return found


def device_settings(text: str) -> Json:
    """Return one of Devices for ``--device host[:container][:permissions]``."""
    parts = text.split(":")
    host = parts[0]
    if not host or len(parts) > 3:
        raise UsageError(f"invalid device {text!r}: host[:container][:permissions]")
    container, permissions = host, "rwm"
    if len(parts) == 3:
        container, permissions = parts[1] or host, parts[2]
    elif len(parts) == 2:
        if parts[1] and set(parts[1]) <= set("rwm"):
            permissions = parts[1]
        else:
            container = parts[1]
    if not permissions or not set(permissions) <= set("rwm"):
        raise UsageError(f"invalid device {text!r}: the permissions are letters of rwm")
    return {
        "PathOnHost": host,
        "PathInContainer": container,
        "CgroupPermissions": permissions,
    }


def _fields(text: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Split ``--mount``; return fields, volume options and volume labels."""
    import csv

    fields: dict[str, str] = {}
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    for part in next(csv.reader([text])):
        key, separator, value = part.partition("=")
        key = _NAMES.get(key.strip().lower(), key.strip().lower())
        if key == "volume-opt":
            options.update([value.partition("=")[::2]])
        elif key == "volume-label":
            labels.update([value.partition("=")[::2]])
        elif not separator:
            if key not in ("readonly", "volume-nocopy", "bind-nonrecursive", "bind-create-src"):
                raise UsageError(f"invalid field {part!r} in --mount: key=value is needed")
            fields[key] = "true"
        else:
            fields[key] = value
    return fields, options, labels


def _boolean(text: str, key: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise UsageError(f"invalid value for {key} in --mount: {text!r} is not true or false")


def mount_settings(text: str) -> Json:
    """Return one of Mounts for ``--mount type=…,source=…,target=…``.

    Raises:
        UsageError: a field is unknown, missing, or of another type of mount.
    """
    fields, options, labels = _fields(text)
    kind = fields.pop("type", "volume")
    if kind not in _ALL:
        raise UsageError(f"invalid mount type {kind!r}: bind, volume, tmpfs or image")
    target = fields.pop("target", "")
    if not target:
        raise UsageError(f"invalid mount {text!r}: target= is required")
    mount: Json = {"Type": kind, "Target": target}
    source = fields.pop("source", "")
    if source:
        relative = kind == "bind" and source.startswith((".", "~"))
        mount["Source"] = os.path.abspath(os.path.expanduser(source)) if relative else source
    elif kind == "bind":
        raise UsageError(f"invalid mount {text!r}: source= is required for a bind mount")
    if "readonly" in fields:
        mount["ReadOnly"] = _boolean(fields.pop("readonly"), "readonly")
    if "idmap" in fields:
        mount["IDMap"] = fields.pop("idmap")
    if "consistency" in fields:
        mount["Consistency"] = fields.pop("consistency")
    for key in fields:
        if key not in _ALL[kind]:
            known = "type, source, target, readonly, idmap, " + ", ".join(sorted(_ALL[kind]))
            raise UsageError(f"unexpected key {key!r} in --mount type={kind} (known: {known})")
    if (options or labels) and kind != "volume":
        raise UsageError(f"volume-opt and volume-label are not for --mount type={kind}")
    mount.update(_details(kind, fields, options, labels))
    return mount


def _details(
    kind: str, fields: dict[str, str], options: dict[str, str], labels: dict[str, str]
) -> Json:
    found: Json = {}
    if kind == "bind":
        if "bind-propagation" in fields:
            found["Propagation"] = fields["bind-propagation"]
        if "bind-nonrecursive" in fields:
            found["NonRecursive"] = _boolean(fields["bind-nonrecursive"], "bind-nonrecursive")
        if fields.get("bind-recursive") == "disabled":
            found["NonRecursive"] = True
        elif fields.get("bind-recursive") == "readonly":
            found["ReadOnlyForceRecursive"] = True
        elif fields.get("bind-recursive") == "writable":
            found["ReadOnlyNonRecursive"] = True
        elif fields.get("bind-recursive", "enabled") != "enabled":
            raise UsageError("bind-recursive is one of enabled, disabled, writable, readonly")
        if "bind-create-src" in fields:
            found["CreateMountpoint"] = _boolean(fields["bind-create-src"], "bind-create-src")
        return {"BindOptions": found} if found else {}
    if kind == "tmpfs":
        if "tmpfs-size" in fields:
            found["SizeBytes"] = parse_size(fields["tmpfs-size"], "tmpfs-size")
        if "tmpfs-mode" in fields:
            try:
                found["Mode"] = int(fields["tmpfs-mode"], 8)
            except ValueError:
                raise UsageError(f"invalid tmpfs-mode {fields['tmpfs-mode']!r}") from None
        return {"TmpfsOptions": found} if found else {}
    if kind == "image":
        return {"ImageOptions": {"Subpath": fields["image-subpath"]}} if fields else {}
    return _volume_details(fields, options, labels)


def _volume_details(
    fields: dict[str, str], options: dict[str, str], labels: dict[str, str]
) -> Json:
    found: Json = {}
    if "volume-nocopy" in fields:
        found["NoCopy"] = _boolean(fields["volume-nocopy"], "volume-nocopy")
    if labels:
        found["Labels"] = labels
    if "volume-driver" in fields or options:
        driver: Json = {"Name": fields.get("volume-driver", "")}
        if options:
            driver["Options"] = options
        found["DriverConfig"] = driver
    if "volume-subpath" in fields:
        found["Subpath"] = fields["volume-subpath"]
    return {"VolumeOptions": found} if found else {}
