"""Volumes: made, mounted, filled from an image, kept as snapshots and cloned.

On a slow disk there are fewer and smaller files, or the disk would be all that is measured; the
rows say how many.
"""

from __future__ import annotations

import io
import itertools
import os
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import Measured, calling, command, interleave, milliseconds
from benchmarks.peers import Api, Dockerd, Engine, Peers
from benchmarks.table import Row
from drivetrain.host import mounts

MIB = 1 << 20
#: Seconds that writing the whole of either content may take.
SLOW = 4.0
IMAGE = "filled:1"


@dataclass(frozen=True)
class Sizes:
    """What there is to copy: small files, and one large file in MiB."""

    files: int = 10_000
    large: int = 1024

    @classmethod
    def for_disk(cls, folder: Path) -> Sizes:
        """Try how quick the disk of a folder is, with a twentieth of both."""
        full = cls()
        begin = time.perf_counter()
        _write_large(folder / "large", full.large // 20)
        middle = time.perf_counter()
        _write_small(folder / "small", full.files // 20)
        end = time.perf_counter()
        return cls(
            full.files if (end - middle) * 20 < SLOW else full.files // 10,
            full.large if (middle - begin) * 20 < SLOW else full.large // 8,
        )


def measure(peers: Peers) -> Iterator[Row]:
    """Measure against dockerd's local driver what it has, and the rest alone."""
    engines = [engine for engine in (peers.engine, peers.dockerd) if engine is not None]
    sizes = Sizes.for_disk(peers.engine.host.root)
    yield _row(peers, "20 × volume create, over the API",
               {one.name: _creating(one) for one in engines}, 5)  # fmt: skip
    yield _row(peers, "run --rm -v volume:/v: mount and unmount",
               {one.name: _mounting(one) for one in engines}, 5)  # fmt: skip
    archive = _filled(sizes.files)
    for engine in engines:
        command(engine.docker("import", "-", IMAGE), archive)
    yield _row(peers, f"run --rm, {sizes.files:,} files copied up from the image",
               {one.name: _copying_up(one) for one in engines}, 3)  # fmt: skip
    yield from _copies(peers.engine, sizes)


def _row(peers: Peers, work: str, works: dict[str, Measured], rounds: int) -> Row:
    taken = interleave(works, rounds)
    ours, theirs = taken["engine"], taken.get("dockerd")
    return Row(work, "ms", milliseconds(ours), milliseconds(theirs), ratio=1.0, note=peers.note)


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
    look = ("sh", "-c", "test -s /data/d0/f0")
    run = ("run", "--rm", "--network", "none", "-v", "/data", IMAGE, *look)
    return calling(engine.docker(*run))


def _filled(files: int) -> bytes:
    """Return busybox with a directory of small files."""
    from drivetrain.testing.rootfs import busybox_tar

    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(busybox_tar())) as base,
        tarfile.open(fileobj=buffer, mode="w") as archive,
    ):
        for entry in base:
            archive.addfile(entry, base.extractfile(entry) if entry.isreg() else None)
        for number in range(files):
            entry = tarfile.TarInfo(f"data/d{number // 100}/f{number}")
            entry.size = 100
            archive.addfile(entry, io.BytesIO(b"x" * 100))
    return buffer.getvalue()


def _copies(engine: Engine, sizes: Sizes) -> Iterator[Row]:
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
            for content in ("empty", f"{sizes.large:,} MiB", f"{sizes.files:,} files"):
                yield from _copied(engine, driver, options, content, sizes)
    finally:
        mounts.unmount(place)


def _copied(
    engine: Engine, driver: str, options: list[str], content: str, sizes: Sizes
) -> Iterator[Row]:
    source = f"source-{driver}"
    command(engine.engine("volume", "create", "-d", driver, *options, source))
    where = Path(
        command(engine.engine("volume", "inspect", "-f", "{{.Mountpoint}}", source)).strip()
    )
    if content.endswith("MiB"):
        _write_large(where / "large", sizes.large)
    elif content.endswith("files"):
        _write_small(where / "small", sizes.files)
    made: list[str] = []

    def copying(kind: str) -> Measured:
        def work() -> None:
            made.append(f"{kind}-{driver}-{len(made)}")
            command(engine.engine("volume", kind, source, made[-1]))

        return work

    rounds = 3 if driver == "btrfs" or content == "empty" else 1
    taken = interleave({kind: copying(kind) for kind in ("snapshot", "clone")}, rounds, warm=0)
    for kind, seconds in taken.items():
        yield Row(f"volume {kind}, {driver}, {content}", "ms", milliseconds(seconds),
                  note="dockerd has none")  # fmt: skip
    command(engine.engine("volume", "rm", source, *made))


def _write_large(file: Path, size: int) -> None:
    """Write a file of ``size`` MiB to the disk."""
    piece = os.urandom(MIB)
    with file.open("wb") as opened:
        for _ in range(size):
            opened.write(piece)
    command(["sync", "-f", str(file)])


def _write_small(folder: Path, count: int) -> None:
    """Write small files to the disk, a hundred in a directory."""
    for number in range(count):
        place = folder / f"d{number // 100}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number}").write_bytes(b"x" * 100)
    command(["sync", "-f", str(folder)])
