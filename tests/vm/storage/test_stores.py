"""A layer store on devicemapper: kills at any moment, and moves from and to the other drivers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.test_storage_crashes import kill_often
from tests.integration.test_storage_migration import walk
from tests.layers import Store
from tests.vm.storage import pools

from drivetrain.host import mounts
from drivetrain.testing.filesystems import file_system, mounted_below

#: An emulated machine takes seconds for each: KILLS=200 FILES=10000, as the issue asks for.
KILLS = int(os.environ.get("KILLS", "4"))
FILES = int(os.environ.get("FILES", "300"))
OPTIONS = {
    "dm.loopdatasize": "2g", "dm.loopmetadatasize": "8m", "dm.basesize": "256m", "dm.fs": "ext4",
}  # fmt: skip


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="stores-") as folder:
        yield Path(folder)
        for target in mounted_below(Path(folder)):
            mounts.unmount(Path(target))
        left = pools.devices()
        pools.free_all()
    assert left == []


@pytest.mark.timeout(max(900, 20 * KILLS))
def test_a_kill_at_any_moment_leaves_a_store_that_is_whole(place: Path) -> None:
    root = place / "data"

    def judge() -> None:
        records = [path.stem for path in (root / "storage/devicemapper/devices").iterdir()]
        layers = [name for name in records if name != "transaction"]
        assert len(layers) == pools.devices_in_pool(root / "storage/devicemapper")
        assert [name for name in pools.devices() if not name.endswith("-pool")] == []

    kill_often(root, "devicemapper", KILLS, OPTIONS, judge)


@pytest.mark.timeout(max(900, FILES // 2))
def test_a_container_moves_between_devicemapper_and_the_other_drivers(place: Path) -> None:
    pools.run("modprobe", "btrfs")
    with file_system("btrfs", place, size=4096) as root:
        route = [step for name in ("overlay2", "btrfs", "vfs") for step in ("devicemapper", name)]
        store = Store(root / "data", options=OPTIONS)
        try:
            walk(store, "vfs", route, FILES, odd_entries=False)
        finally:
            store.clear()
            store.close()
