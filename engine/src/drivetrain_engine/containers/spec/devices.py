"""Devices: nodes to make in a container, and rules of the device cgroup."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drivetrain.errors import InvalidArgument
from drivetrain_engine.containers.request.hostconfig import HostConfig

Json = dict[str, Any]

#: null, zero, full, random, urandom, tty, console, ptmx, pts: the runtimes make and allow them
#: too, the rules make the answer the same with every runtime.
_ALLOWED = (
    ("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9), ("c", 5, 0), ("c", 5, 1),
    ("c", 5, 2), ("c", 136, None),
)  # fmt: skip
_OWN_IN_CONTAINER = ("console", "fd", "mqueue", "ptmx", "pts", "shm", "stderr", "stdin", "stdout")


def _rule(allow: bool, kind: str, major: int | None, minor: int | None, access: str) -> Json:
    rule: Json = {"allow": allow, "type": kind, "access": access}
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


def _node(host_path: str, path: str) -> Json:
    found = os.stat(host_path)
    kind = "b" if stat.S_ISBLK(found.st_mode) else "c"
    return {
        "type": kind,
        "path": path,
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def _is_device(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _below(directory: str) -> list[str]:
    found = []
    for base, directories, files in os.walk(directory):
        directories.sort()
        found += [os.path.join(base, name) for name in sorted(files)]
    return [path for path in found if _is_device(path)]


def container_devices(host: HostConfig) -> tuple[list[Json], list[Json]]:
    """Return ``linux.devices`` and ``linux.resources.devices``.

    Raises:
        InvalidArgument: a device does not exist.
    """
    if host.privileged:
        return _all_devices() + _asked(host)[0], [_rule(True, "a", None, None, "rwm")]
    nodes, rules = _asked(host)
    base = [{"allow": False, "access": "rwm"}]
    base += [_rule(True, kind, major, minor, "rwm") for kind, major, minor in _ALLOWED]
    return nodes, [*base, *rules, *_custom(host.device_cgroup_rules or ())]


def _asked(host: HostConfig) -> tuple[list[Json], list[Json]]:
    nodes: list[Json] = []
    rules: list[Json] = []
    for mapping in host.devices or ():
        source = mapping.path_on_host
        target = mapping.path_in_container or source
        access = mapping.cgroup_permissions or "rwm"
        if not set(access) <= set("rwm"):
            raise InvalidArgument(f"invalid device mode: {access}")
        if Path(source).is_dir():
            found = [(path, target + path.removeprefix(source)) for path in _below(source)]
        elif _is_device(source):
            found = [(source, target)]
        else:
            raise InvalidArgument(
                f'error gathering device information while adding custom device "{source}": '
                f"no such device"
            )
        for path, place in found:
            node = _node(path, place)
            nodes.append(node)
            rules.append(_rule(True, node["type"], node["major"], node["minor"], access))
    return nodes, rules


def _all_devices() -> list[Json]:
    found = []
    with os.scandir("/dev") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name in _OWN_IN_CONTAINER or entry.is_symlink():
                continue
            paths = _below(entry.path) if entry.is_dir() else [entry.path]
            found += [_node(path, path) for path in paths if _is_device(path)]
    return found


def _custom(rules: Sequence[str]) -> list[Json]:
    found = []
    for rule in rules:
        kind, numbers, access = rule.split()
        major, _, minor = numbers.partition(":")
        found.append(
            _rule(
                True,
                kind,
                None if major == "*" else int(major),
                None if minor == "*" else int(minor),
                access,
            )
        )
    return found
