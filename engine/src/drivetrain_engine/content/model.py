"""An image as the rest of the engine sees it, and what the store remembers of it."""

from __future__ import annotations

import datetime
import hashlib
import platform
from collections.abc import Sequence
from typing import Any

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain_engine.content.layout import CONFIG_TYPE, MANIFEST_TYPE, Descriptor

Json = dict[str, Any]

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


class Image(msgspec.Struct, frozen=True):
    """An image.

    Attributes:
        id: ``sha256:…`` of its config.
        config: the OCI image config: ``architecture``, ``os``, ``config``, ``rootfs``,
            ``history``, …; not to be changed.
        diff_ids: of the layers, lowest first.
        chain_ids: what identifies the stack of layers up to each one.
        tags: names as users write them, sorted.
        size: bytes of all layers, inflated.
        created: RFC 3339; empty when the config has none.
        parent: id of the image that it was committed from, or empty.
    """

    id: str
    config: Json
    diff_ids: tuple[str, ...]
    chain_ids: tuple[str, ...]
    tags: tuple[str, ...] = ()
    size: int = 0
    created: str = ""
    parent: str = ""

    @property
    def settings(self) -> Json:
        """The ``config`` object of the config, with ``Cmd``, ``Env`` and the like."""
        return self.config.get("config") or {}


class Layer(msgspec.Struct, frozen=True):
    """One layer as it is stored.

    Attributes:
        descriptor: of the blob, as in the manifest.
        diff_size: bytes when inflated.
    """

    descriptor: Descriptor
    diff_size: int

    @property
    def digest(self) -> str:
        """The digest of the blob."""
        return str(self.descriptor["digest"])


class Record(msgspec.Struct):
    """What the store remembers of an image.

    Attributes:
        image: as others see it; replaced when its tags change.
        descriptor: of the manifest, without annotations.
        layers: lowest first.
        tagged: full name to the time of tagging, RFC 3339.
    """

    image: Image
    descriptor: Descriptor
    layers: tuple[Layer, ...]
    tagged: dict[str, str]

    @property
    def digests(self) -> set[str]:
        """All blobs that the image needs."""
        return {
            self.image.id,
            str(self.descriptor["digest"]),
            *(layer.digest for layer in self.layers),
        }


def now() -> str:
    """Return the time, RFC 3339 with microseconds, UTC."""
    moment = datetime.datetime.now(datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> float:
    """Return seconds since 1970 of an RFC 3339 time; 0.0 for none or a bad one."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def host_platform() -> tuple[str, str]:
    """Return operating system and architecture of this host in OCI's words."""
    machine = platform.machine()
    return "linux", _MACHINES.get(machine, machine)


def parse_platform(text: str) -> tuple[str, str, str]:
    """Return system, architecture and variant of ``linux/arm64/v8``; the host's when empty.

    Raises:
        InvalidArgument: it is no platform that images here may have.
    """
    system, architecture = host_platform()
    if not text:
        return system, architecture, ""
    parts = text.split("/")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f"{text!r} is not a platform such as linux/amd64")
    if len(parts) == 1:
        return (parts[0], architecture, "") if parts[0] == system else (system, parts[0], "")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """Return the OCI chain ids of a stack of layers."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if not chain:
            chain.append(diff_id)
        else:
            text = f"{chain[-1]} {diff_id}".encode()
            chain.append("sha256:" + hashlib.sha256(text).hexdigest())
    return tuple(chain)


def make_manifest(config: bytes, config_digest: str, layers: Sequence[Layer]) -> bytes:
    """Return an OCI manifest."""
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": config_digest, "size": len(config)},
            "layers": [layer.descriptor for layer in layers],
        }
    )


def platform_of(config: Json) -> Json:
    """Return the ``platform`` object of a descriptor for an image of this config."""
    keys = ("architecture", "os", "variant", "os.version")
    return {key: config[key] for key in keys if config.get(key)}
