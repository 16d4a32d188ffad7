"""Archives of the time before ``manifest.json``: one directory per layer, and ``repositories``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain_engine.content.model import Json
from drivetrain_engine.content.staging import Staged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drivetrain_engine.content.incoming import Archive

_KEPT = ("architecture", "os", "variant", "created", "author", "config")


def read_legacy(archive: Archive) -> Iterator[tuple[Staged, list[Staged], list[str], str]]:
    """Yield config, layers, tags and a name for messages of every image.

    Raises:
        InvalidArgument: a layer is missing, or its parents go in a circle.
    """
    names: dict[str, list[str]] = {}
    for repository, tags in archive.json("repositories", dict).items():
        if not isinstance(tags, dict):
            raise InvalidArgument("archive entry repositories: tags of every repository are needed")
        for tag, layer in tags.items():
            names.setdefault(str(layer), []).append(f"{repository}:{tag}")
    for layer, tags in names.items():
        chain = _chain(archive, layer)
        files = [archive.file(f"{name}/layer.tar") for name, _ in chain]
        config = archive.staging.from_bytes(msgspec.json.encode(_config(chain, files)))
        yield config, files, tags, f"{layer}/json"


def _chain(archive: Archive, layer: str) -> list[tuple[str, Json]]:
    """Return the layers' names and descriptions, lowest first."""
    chain: list[tuple[str, Json]] = []
    while layer:
        if any(layer == name for name, _ in chain):
            raise InvalidArgument(f"archive entry {layer}/json: its parents go in a circle")
        description = archive.json(f"{layer}/json", dict)
        chain.append((layer, description))
        layer = str(description.get("parent") or "")
    return chain[::-1]


def _config(chain: list[tuple[str, Json]], files: list[Staged]) -> Json:
    top = chain[-1][1]
    history = []
    for _, description in chain:
        command = (description.get("container_config") or {}).get("Cmd") or []
        item = {
            "created": description.get("created"),
            "created_by": " ".join(str(word) for word in command),
            "author": description.get("author"),
            "comment": description.get("comment"),
        }
        history.append({key: value for key, value in item.items() if value})
    return {
        "architecture": "amd64",
        "os": "linux",
        **{key: top[key] for key in _KEPT if top.get(key)},
        "rootfs": {"type": "layers", "diff_ids": [file.diff_id for file in files]},
        "history": history,
    }
