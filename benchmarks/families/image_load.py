"""Loading an image of 200 MB in 6,768 files, and unpacking it for a container."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import archives
from benchmarks.measuring import command, interleave
from benchmarks.peers import Peers
from benchmarks.table import Row

FILES = 6768
SIZE = 200 << 20
ROUNDS = 3
BUDGET = 0.4
NAME = "large:1"

Client = Callable[..., list[str]]


def measure(peers: Peers) -> Iterator[Row]:
    """Measure ``load``, and ``load`` with the first container, plain and compressed."""
    clients: dict[str, Client] = {"engine": peers.engine.docker}
    if peers.podman is not None:
        clients["podman"] = peers.podman.podman
    if peers.dockerd is not None:
        clients["dockerd"] = peers.dockerd.docker
    source = Source(peers.engine.host.root)
    for title, packed in (("", False), (", gzip", True)):
        if packed:
            clients.pop("podman", None)  # 4.3.1 finds no archive in what docker save | gzip wrote
        works = {}
        for name, client in clients.items():
            loading = Loading(client, source, packed)
            works |= {f"{name} load": loading.load, f"{name} both": loading.create}
        taken = interleave(works, ROUNDS)
        for name in clients:
            if name != "engine":
                for suffix, work in (("load", ""), ("both", ", and create a container")):
                    yield Row(
                        f"load 200 MB in {FILES:,} files{title}{work}", "s",
                        taken[f"engine {suffix}"], taken[f"{name} {suffix}"],
                        peer=name, ratio=BUDGET if name == "dockerd" else None, note=peers.note,
                    )  # fmt: skip


class Loading:
    """What one engine does in a round, with an image that it has not seen.

    Nothing is removed in between: for minutes ext4 looks for inodes among those that were freed,
    which takes longer than all else.
    """

    def __init__(self, client: Client, source: Source, packed: bool) -> None:
        self._client = client
        self._source = source
        self._packed = packed
        self._loading = 0.0

    def load(self) -> float:
        """Load; only some engines unpack the layer now."""
        archive = self._source.archive(self._packed)
        subprocess.run(["sync", "-f", str(archive)], check=True)
        begin = time.perf_counter()
        command(self._client("load", "-i", str(archive)))
        self._loading = time.perf_counter() - begin
        archive.unlink()
        return self._loading

    def create(self) -> float:
        """Create a container of the image; with the time of the load."""
        begin = time.perf_counter()
        command(self._client("create", NAME, "true"))
        return self._loading + time.perf_counter() - begin


class Source:
    """Makes archives as ``docker save`` does, each of an image of its own.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._layer = _layer()
        self._count = 0

    def archive(self, packed: bool) -> Path:
        """Write the next one.

        Args:
            packed: compress it all.
        """
        self._count += 1
        at = self._layer.index(b"number ") + len(b"number ")
        self._layer[at : at + 8] = b"%8d" % self._count
        path = self._folder / f"archive{self._count}.tar"
        return archives.write(path, NAME, [self._layer], packed=packed)


def _layer() -> bytearray:
    """Return a root file system whose files compress about as well as a distribution's."""
    source = random.Random(1)
    words = [source.randbytes(source.randint(2, 9)) for _ in range(4000)]
    text = b"".join(source.choices(words, k=1 << 19))
    files: dict[str, bytes | None] = {"first": b"number xxxxxxxx\n"}
    for number in range(FILES):
        folder = f"usr/share/d{number // 100}"
        files.setdefault(folder)
        size = SIZE // FILES
        begin = source.randrange(len(text) - size)
        files[f"{folder}/f{number}"] = text[begin : begin + size]
    return archives.layer(files)
