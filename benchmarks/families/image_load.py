"""Loading an image of 200 MB in 6,768 files, and unpacking it for a container."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Measured, command, interleave
from benchmarks.peers import Dockerd, Engine, Peers
from benchmarks.table import Row

FILES = 6768
SIZE = 200 << 20
ROUNDS = 3
BUDGET = 0.4
NAME = "large:1"


def measure(peers: Peers) -> Iterator[Row]:
    """Measure ``load`` and the first container, from a plain and a compressed archive."""
    engines = [engine for engine in (peers.engine, peers.dockerd) if engine is not None]
    folder = peers.engine.host.root
    plain = folder / "plain.tar"
    command(peers.engine.docker("import", "-", NAME), _root())
    command(peers.engine.docker("save", "-o", str(plain), NAME))
    command(peers.engine.docker("rmi", NAME))
    packed = folder / "packed.tar"
    with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
        while block := source.read(1 << 20):
            target.write(block)
    for title, archive in (("", plain), (", gzip", packed)):
        works = {engine.name: _loading(engine, archive) for engine in engines}
        taken = interleave(works, ROUNDS)
        yield Row(
            f"load 200 MB in {FILES:,} files{title}, and create a container", "s",
            taken["engine"], taken.get("dockerd"), ratio=BUDGET, note=peers.note,
        )  # fmt: skip


def _root() -> bytes:
    """Return a root file system whose files compress about as well as a distribution's."""
    source = random.Random(1)
    words = [source.randbytes(source.randint(2, 9)) for _ in range(4000)]
    text = b"".join(source.choices(words, k=1 << 19))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(FILES):
            if number % 100 == 0:
                folder = tarfile.TarInfo(f"usr/share/d{number // 100}")
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(folder)
            size = SIZE // FILES
            begin = source.randrange(len(text) - size)
            entry = tarfile.TarInfo(f"usr/share/d{number // 100}/f{number}")
            entry.size = size
            archive.addfile(entry, io.BytesIO(text[begin : begin + size]))
    return buffer.getvalue()


def _loading(engine: Engine | Dockerd, archive: Path) -> Measured:
    """Ours unpacks a layer when a driver first needs it, dockerd at once: so both do."""

    def work() -> float:
        begin = time.perf_counter()
        command(engine.docker("load", "-i", str(archive)))
        container = command(engine.docker("create", NAME, "true")).strip()
        spent = time.perf_counter() - begin
        command(engine.docker("rm", container))
        command(engine.docker("rmi", NAME))
        subprocess.run(["sync", "-f", str(archive)], check=True)
        return spent

    return work
