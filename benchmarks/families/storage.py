"""Storage drivers against dockerd with the same driver, and how each grows."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import archives
from benchmarks.measuring import Measured, command, interleave, milliseconds
from benchmarks.peers import Api, Dockerd, Engine, Missing, Peers
from benchmarks.table import Row
from drivetrain.host import mounts
from drivetrain.options import parse_options
from drivetrain.registry import Registry
from drivetrain.testing.filesystems import file_system, mounted_below

DRIVERS = ("overlay2", "btrfs", "vfs")
PARENTS = (1, 10, 60)
ROUNDS = 9
#: Layers beside the one that is measured: over the API, with overlay2, and by the driver alone.
CONTAINERS, LAYERS = (10, 1_000), (10, 1_000)
#: Of overlay2, too; btrfs takes minutes to make so many, and vfs as many copies.
MANY = 10_000
#: Files that a container changed, of an image that has this many.
CHANGED, IMAGE_FILES = (100, 2_000), 5_000
UNPACKED = 5


@dataclass
class Side:
    """One engine: its client and its API."""

    engine: Engine | Dockerd
    api: Api

    def load(self, archive: Path) -> None:
        """Load an image."""
        command(self.engine.docker("load", "-i", str(archive)))

    def create(self, image: str) -> str:
        """Make a container and return its id."""
        body = {"Image": image, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
        return str(self.api.post("/containers/create", body)["Id"])

    def remove(self, container: str) -> None:
        """Remove a container."""
        self.api.request("DELETE", f"/containers/{container}")


Work = Callable[[Side], Measured]


def measure(peers: Peers) -> Iterator[Row]:
    """Measure every driver on a file system that it works on."""
    del peers  # which have roots and a driver of their own
    for driver in DRIVERS:
        with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as name:
            folder = Path(name)
            kind = "btrfs" if driver == "btrfs" else "ext4"
            with file_system(kind, folder, size=24 << 10) as place:
                with _sides(driver, place) as (sides, missing):
                    yield from _Family(driver, folder, sides, missing).rows()
                yield from _growth(driver, place / "grown")
                for left in mounted_below(place):
                    mounts.unmount(Path(left))


@contextmanager
def _sides(driver: str, place: Path) -> Iterator[tuple[dict[str, Side], str]]:
    """Start both engines; the text says what is missing."""
    with ExitStack() as stack:
        sides: dict[str, Side] = {}
        missing = ""
        for kind in (Engine, Dockerd):
            flags = ("--storage-driver", driver, "--data-root", str(place / kind.name))
            try:
                engine = kind(*flags)
            except Missing as error:
                missing = str(error)
                continue
            stack.callback(engine.close)
            sides[kind.name] = Side(engine, Api(Path(engine.socket)))
        yield sides, missing


class _Family:
    """What is measured over the API, with one driver.

    Args:
        driver: of both engines.
        folder: for archives.
        sides: the engines.
        note: what is missing.
    """

    def __init__(self, driver: str, folder: Path, sides: dict[str, Side], note: str) -> None:
        self._driver = driver
        self._folder = folder
        self._sides = sides
        self._note = note
        self._count = itertools.count()

    def rows(self) -> Iterator[Row]:
        """Measure everything."""
        for parents in PARENTS:
            name = f"chain{parents}:1"
            self._load(name, [archives.layer({f"f{n}": b"x" * n}) for n in range(parents)])
            yield self._row(f"create, mount, remove over {parents}", self._life(name))
        yield self._row(f"unpack {UNPACKED} layers of 300 files", self._unpacking, rounds=3)
        files: dict[str, bytes | None] = {
            f"d{n // 100}/f{n}": b"x" * 100 for n in range(IMAGE_FILES)
        }
        self._load("files:1", [archives.layer(files)])
        for changed in CHANGED:
            yield self._row(
                f"diff of {changed:,} files, of {IMAGE_FILES:,}", self._diff(changed), rounds=3
            )
            yield self._row(f"commit of {changed:,} files", self._commit(changed), rounds=3)
        if self._driver == "overlay2":
            for beside in CONTAINERS:
                name = f"chain{PARENTS[1]}:1"
                yield self._row(
                    f"create, mount, remove beside {beside:,}", self._life(name, beside)
                )

    def _row(self, what: str, work: Work, rounds: int = ROUNDS) -> Row:
        works = {name: work(side) for name, side in self._sides.items()}
        taken = interleave(works, rounds)
        return Row(
            f"{self._driver}: {what}", "ms", milliseconds(taken["engine"]),
            milliseconds(taken.get("dockerd")), ratio=1.0, note=self._note,
        )  # fmt: skip

    def _archive(self, name: str, layers: Sequence[bytes | bytearray]) -> Path:
        return archives.write(self._folder / f"{next(self._count)}.tar", name, layers)

    def _load(self, name: str, layers: Sequence[bytes | bytearray]) -> None:
        archive = self._archive(name, layers)
        for side in self._sides.values():
            side.load(archive)
            side.remove(side.create(name))  # ours unpacks now
        archive.unlink()

    def _life(self, image: str, beside: int = 0) -> Work:
        """A container is made, looked into, which mounts and unmounts it, and removed."""

        def prepared(side: Side) -> Measured:
            there = json.loads(side.api.request("GET", "/containers/json?all=1"))
            for _ in range(beside - len(there)):
                side.create(image)

            def work() -> None:
                container = side.create(image)
                side.api.request("HEAD", f"/containers/{container}/archive?path=/")
                side.remove(container)

            return work

        return prepared

    def _unpacking(self, side: Side) -> Measured:
        def work() -> float:
            mark = b"%d" % next(self._count)
            layers = [
                archives.layer({f"l{n}/f{m}": mark + b"x" * 4000 for m in range(300)})
                for n in range(UNPACKED)
            ]
            archive = self._archive("unpacked:1", layers)
            begin = time.perf_counter()
            side.load(archive)
            container = side.create("unpacked:1")
            spent = time.perf_counter() - begin
            side.remove(container)
            archive.unlink()
            return spent

        return work

    def _filled(self, side: Side, changed: int) -> str:
        container = side.create("files:1")
        half: dict[str, bytes | None] = {
            f"d{n // 100}/{'f' if n % 2 else 'new'}{n}": b"changed" for n in range(changed)
        }
        archive = bytes(archives.layer(half))
        side.api.request("PUT", f"/containers/{container}/archive?path=/", archive)
        return container

    def _diff(self, changed: int) -> Work:
        def prepared(side: Side) -> Measured:
            container = self._filled(side, changed)

            def work() -> None:
                found = json.loads(side.api.request("GET", f"/containers/{container}/changes"))
                assert len(found) >= changed, len(found)

            return work

        return prepared

    def _commit(self, changed: int) -> Work:
        def prepared(side: Side) -> Measured:
            container = self._filled(side, changed)

            def work() -> None:
                side.api.post(f"/commit?container={container}&repo=made&tag={changed}", {})

            return work

        return prepared


def _growth(driver: str, root: Path) -> Iterator[Row]:
    """Measure the driver alone, beside more and more layers."""
    loaded = Registry().storage(driver)
    call = loaded.call
    root.mkdir()
    call.storage_open(root, parse_options(driver, call.storage_options(), {}))
    options = parse_options(driver, call.layer_options(), {})
    target = root.parent / "target"
    target.mkdir()

    def make(key: str, parents: tuple[str, ...]) -> None:
        call.layer_create(key, parents, options, "container" if parents else "image")

    def with_mount(key: str, parents: tuple[str, ...]) -> None:
        mounts.mount(call.layer_mounts(key, parents, False), target)
        if not parents:
            for number in range(100):
                (target / f"f{number}").write_bytes(b"x" * 100)
        mounts.unmount(target)

    make("base", ())
    with_mount("base", ())
    call.layer_commit("base")

    def life() -> None:
        make("measured", ("base",))
        with_mount("measured", ("base",))
        call.layer_remove("measured")

    there = 0
    for layers in (*LAYERS, MANY) if driver == "overlay2" else LAYERS:
        for number in range(there, layers):
            make(f"beside{number}", ("base",))
        there = layers
        taken = interleave({"": life}, ROUNDS)[""]
        yield Row(f"{driver}, the driver alone: the same beside {layers:,}", "ms", taken * 1000)
    call.storage_close()
