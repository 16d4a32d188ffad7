"""Volumes: made, mounted, filled from an image, kept as snapshots and cloned."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Measured, calling, command, interleave, milliseconds
from benchmarks.peers import Api, Dockerd, Engine, Peers
from benchmarks.table import Row
from drivetrain.host import mounts

FILES = 10_000
SIZE = 1 << 30
ROUNDS = 5
IMAGE = "filled:1"


def measure(peers: Peers) -> Iterator[Row]:
    """Measure against dockerd's local driver what it has, and the rest alone."""
    engines = [engine for engine in (peers.engine, peers.dockerd) if engine is not None]
    yield _row(peers, "volume create, over the API", {one.name: _creating(one) for one in engines})
    yield _row(peers, "run --rm -v volume:/v: mount and unmount",
               {one.name: _mounting(one) for one in engines})  # fmt: skip
    for engine in engines:
        command(engine.docker("import", "-", IMAGE), _filled())
    yield _row(peers, f"run --rm, {FILES:,} files copied up from the image",
               {one.name: _copying_up(one) for one in engines})  # fmt: skip
    yield from _copies(peers.engine)


def _row(peers: Peers, work: str, works: dict[str, Measured]) -> Row:
    taken = interleave(works, ROUNDS)
    ours, theirs = taken["engine"], taken.get("dockerd")
    return Row(work, "ms", milliseconds(ours), milliseconds(theirs), note=peers.note)


def _creating(engine: Engine | Dockerd) -> Measured:
    api = Api(Path(engine.socket))
    names = (f"made{number}" for number in itertools.count())

    def work() -> None:
        for _ in range(20):
            api.post("/volumes/create", {"Name": next(names)})

    return work


def _mounting(engine: Engine | Dockerd) -> Measured:
    command(engine.docker("volume", "create", "mounted"))
    run = ("run", "--rm", "--network", "none", "-v", "mounted:/v", "busybox", "true")
    return calling(engine.docker(*run))


def _copying_up(engine: Engine | Dockerd) -> Measured:
    # an anonymous volume, empty each time
    run = ("run", "--rm", "--network", "none", "-v", "/data", IMAGE, "/bin/true")
    return calling(engine.docker(*run))


def _filled() -> bytes:
    """Return busybox with a directory of small files."""
    from drivetrain.testing.rootfs import busybox_tar

    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(busybox_tar())) as base,
        tarfile.open(fileobj=buffer, mode="w") as archive,
    ):
        for entry in base:
            archive.addfile(entry, base.extractfile(entry) if entry.isreg() else None)
        for number in range(FILES):
            entry = tarfile.TarInfo(f"data/d{number // 100}/f{number}")
            entry.size = 100
            archive.addfile(entry, io.BytesIO(b"x" * 100))
    return buffer.getvalue()


def _copies(engine: Engine) -> Iterator[Row]:
    """Measure snapshots and clones on a plain directory and on btrfs, which dockerd has not."""
    folder = engine.host.root
    place = folder / "btrfs"
    place.mkdir()
    (folder / "disk").touch()
    os.truncate(folder / "disk", 3 << 30)
    command(["mkfs.btrfs", "-q", str(folder / "disk")])
    command(["mount", "-o", "loop", str(folder / "disk"), str(place)])
    try:
        for driver, options in (("local", []), ("btrfs", ["-o", f"root={place}"])):
            for content in ("empty", "1 GB", f"{FILES:,} files"):
                yield from _copied(engine, driver, options, content)
    finally:
        mounts.unmount(place)


def _copied(engine: Engine, driver: str, options: list[str], content: str) -> Iterator[Row]:
    source = f"source-{driver}"
    command(engine.engine("volume", "create", "-d", driver, *options, source))
    where = command(engine.engine("volume", "inspect", "-f", "{{.Mountpoint}}", source)).strip()
    _fill(Path(where), content)
    made: list[str] = []

    def copying(kind: str) -> Measured:
        def work() -> None:
            made.append(f"{kind}-{driver}-{len(made)}")
            command(engine.engine("volume", kind, source, made[-1]))

        return work

    rounds = 1 if content == "1 GB" else 3
    taken = interleave({kind: copying(kind) for kind in ("snapshot", "clone")}, rounds, warm=0)
    for kind, seconds in taken.items():
        yield Row(f"volume {kind}, {driver}, {content}", "ms", milliseconds(seconds),
                  note="dockerd has none")  # fmt: skip
    command(engine.engine("volume", "rm", source, *made))


def _fill(place: Path, content: str) -> None:
    if content == "1 GB":
        piece = os.urandom(1 << 24)
        with (place / "file").open("wb") as file:
            for _ in range(SIZE // len(piece)):
                file.write(piece)
    elif content != "empty":
        for number in range(FILES):
            (place / f"f{number}").write_bytes(b"x" * 100)
    subprocess.run(["sync", "-f", place], check=True)
