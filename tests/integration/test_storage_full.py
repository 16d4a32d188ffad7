"""A data root that is full, of bytes or of inodes: said clearly, nothing lost, room helps."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import archives
from tests.layers import Store

from drivetrain.errors import Exhausted
from drivetrain.host import mounts
from drivetrain.testing.entries import describe
from drivetrain.testing.filesystems import file_system, mounted_below

CONTAINER = "c" * 64


class Small:
    """A data root on an ext4 that is soon full."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root = root
        self.kind = kind
        self.reserve = root / "reserve"
        self.reserve.mkdir()
        for number in range(1500 if kind == "inodes" else 40):
            text = bytes([number % 256]) * (1 << 20) if kind == "bytes" else b""
            (self.reserve / str(number)).write_bytes(text)
        self.store = Store(root / "data")

    def fill(self) -> None:
        """Write so much into the container that there is no room for it twice."""
        with self.store.layers.mounted(CONTAINER) as root:
            (root / "new").mkdir()
            for number in range(30 if self.kind == "bytes" else 1100):
                text = bytes([number]) * (1 << 20) if self.kind == "bytes" else b""
                (root / "new" / str(number)).write_bytes(text)

    def content(self) -> dict[bytes, object]:
        with self.store.layers.mounted(CONTAINER) as root:
            found = describe(root)
        del found[b"."]["modified"]
        for name in (b"etc", b"implied", b"later"):  # no archive says when
            found[name].pop("modified")
        return found


@pytest.fixture(params=["bytes", "inodes"])
def small(request) -> Iterator[Small]:
    make = ("-N", "4096") if request.param == "inodes" else ()
    with tempfile.TemporaryDirectory(prefix="full-") as folder:
        with file_system("ext4", Path(folder), size=112, make=make) as root:
            made = Small(root, request.param)
            yield made
            made.store.clear()
            made.store.close()


@pytest.mark.parametrize(("source", "target"), [("overlay2", "vfs"), ("vfs", "overlay2")])
def test_a_move_without_room_changes_nothing_and_works_when_there_is_some(small, source, target):
    store, image = small.store, small.store.image()
    store.container(CONTAINER, source, image)
    small.fill()
    before = small.content()
    with pytest.raises(Exhausted) as refused:
        store.migrate(CONTAINER, target, image)
    assert "No space left on device" in str(refused.value)
    assert store.layers.driver_of(CONTAINER) == source
    assert small.content() == before
    assert [one.driver for one in store.layers.records() if not one.committed] == [source]
    store.reopen()
    store.layers.reconcile({CONTAINER}, set())
    assert small.content() == before
    shutil.rmtree(small.reserve)
    store.migrate(CONTAINER, target, store.image())
    assert store.layers.driver_of(CONTAINER) == target
    assert small.content() == before


@pytest.mark.parametrize("driver", ["overlay2", "vfs", "fuse-overlayfs"])
def test_a_container_without_room_leaves_nothing_and_the_others_alone(small, driver):
    store, image = small.store, small.store.image()
    store.container(CONTAINER, driver, image)
    small.fill()
    before = small.content()
    records = {(one.driver, one.key) for one in store.layers.records()}
    filler = small.root / "filler"
    filler.mkdir()
    with pytest.raises(OSError):
        for number in range(100_000):
            (filler / str(number)).write_bytes(b"x" * (4096 if small.kind == "bytes" else 0))
    with pytest.raises(Exhausted) as refused:
        store.container("d" * 64, driver, image)
    assert "No space left on device" in str(refused.value)
    assert {(one.driver, one.key) for one in store.layers.records()} == records
    shutil.rmtree(filler)
    store.container("d" * 64, driver, image)
    assert small.content() == before


@pytest.mark.parametrize("driver", ["overlay2", "vfs", "fuse-overlayfs", "btrfs"])
def test_an_image_without_room_is_told_and_unpacked_when_there_is_some(tmp_path, driver):
    """btrfs makes containers without room for them, but no image without its own."""
    kind = "btrfs" if driver == "btrfs" else "ext4"
    with file_system(kind, tmp_path, size=256 if kind == "btrfs" else 112) as root:
        store = Store(root / "data", default=driver)
        try:
            _unpack_without_room(store, driver, root / "filler")
            store.clear()
            assert mounted_below(root) == []
        finally:
            store.close()
            for left in mounted_below(root):
                mounts.unmount(Path(left))


def _unpack_without_room(store: Store, driver: str, filler: Path) -> None:
    store.container(CONTAINER, driver, store.image())
    with store.layers.mounted(CONTAINER) as mounted:
        (mounted / "kept").write_text("kept")
    large = store.images.import_tar(io.BytesIO(bytes(_large())))
    records = {(one.driver, one.key) for one in store.layers.records()}
    filler.mkdir()
    fill(filler)
    next(filler.iterdir()).unlink()  # for records
    with pytest.raises(Exhausted) as refused:
        store.container("d" * 64, driver, large)
    assert "No space left on device" in str(refused.value)
    with store.layers.mounted(CONTAINER) as mounted:
        assert (mounted / "kept").read_text() == "kept"
    if driver != "btrfs":  # which may have no room to open the records
        store.reopen()
    shutil.rmtree(filler)
    os.sync()
    store.reopen()
    store.layers.reconcile({CONTAINER}, set())
    assert {(one.driver, one.key) for one in store.layers.records()} == records
    store.container("d" * 64, driver, store.images.get(large.id))
    with store.layers.mounted("d" * 64) as mounted:
        assert sum(path.stat().st_size for path in mounted.iterdir()) == 12 << 20


def _large() -> bytearray:
    return archives.layer({f"f{n}": random.Random(n).randbytes(1 << 20) for n in range(12)})


def fill(folder: Path) -> None:
    """Write until nothing more is taken, in large pieces and then in small ones."""
    for size in (1 << 20, 1 << 16):
        try:
            for number in range(10_000):
                with (folder / f"{size}-{number}").open("wb", buffering=0) as file:
                    file.write(random.Random(number).randbytes(size))
                    os.fsync(file.fileno())
        except OSError as error:
            assert error.errno == errno.ENOSPC
