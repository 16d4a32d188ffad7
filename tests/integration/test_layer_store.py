"""The layer store keeps the rules that drivers rely on: keys, parents, kinds, mounts, options."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.layers import Store

from drivetrain.errors import (
    AlreadyExists,
    FailedPrecondition,
    InUse,
    InvalidArgument,
    NotFound,
)
from drivetrain.host import mounts
from drivetrain.testing.filesystems import mounted_below
from drivetrain_engine.layers.records import LayerRecord

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture(params=["overlay2", "vfs"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    made = Store(tmp_path / "root", default=request.param)
    yield made
    made.clear()
    made.close()
    assert mounted_below(tmp_path) == []


def driver(store: Store) -> str:
    return store.layers.default


def keys(store: Store, *, committed: bool) -> list[str]:
    return [record.key for record in store.layers.records() if record.committed is committed]


def test_a_key_is_used_once(store):
    store.container(ONE, driver(store), store.image())
    with store.layers.mounted(ONE) as root:
        (root / "mine").write_text("x")
    with pytest.raises(AlreadyExists, match=ONE[:12]):
        store.container(ONE, driver(store))
    with store.layers.mounted(ONE) as root:
        assert (root / "mine").read_text() == "x"


def test_a_key_is_free_again_after_its_removal(store):
    store.container(ONE, driver(store), store.image())
    with store.layers.mounted(ONE) as root:
        (root / "mine").write_text("x")
    store.layers.remove(ONE)
    store.layers.remove(ONE)
    store.container(ONE, driver(store), store.image())
    with store.layers.mounted(ONE) as root:
        assert not (root / "mine").exists()


def test_a_layer_without_a_container_is_not_found(store):
    for deed in (store.layers.mount, store.layers.changes, store.layers.usage):
        with pytest.raises(NotFound, match=ONE[:12]):
            deed(ONE)


def test_a_parent_is_unpacked_before_it_is_built_upon(store):
    """An unknown parent cannot be named: images name them, and those are made good."""
    image = store.image()
    store.container(ONE, driver(store), image)
    record = next(record for record in store.layers.records() if record.container)
    assert len(record.parents) == 2
    assert set(record.parents) == set(keys(store, committed=True))


def test_a_parent_that_was_never_finished_is_unpacked_anew(store):
    image = store.image()
    base, _ = reversed(store.layers.image_layers(image, driver(store)))
    records = store.layers._records
    records.put(LayerRecord(driver(store), base, (), committed=False))
    store.container(ONE, driver(store), image)
    assert base in keys(store, committed=True)
    with store.layers.mounted(ONE) as root:
        assert (root / "etc" / "1").read_text() == "changed"


def test_layers_that_others_stand_on_stay(store):
    store.container(ONE, driver(store), store.image())
    store.layers.discard_image_layers(keep_images=False)
    assert len(keys(store, committed=True)) == 2
    with store.layers.mounted(ONE) as root:
        assert (root / "etc" / "1").read_text() == "changed"
    store.layers.remove(ONE)
    store.layers.discard_image_layers(keep_images=False)
    assert keys(store, committed=True) == []


def test_layers_that_containers_of_another_driver_stand_on_do_not(store):
    other = "vfs" if driver(store) == "overlay2" else "overlay2"
    store.container(ONE, driver(store), store.image())
    store.layers.image_layers(store.image(), other)
    store.layers.discard_image_layers(keep_images=False)
    assert {record.driver for record in store.layers.records()} == {driver(store)}


def test_a_view_of_an_image_is_read_only_and_never_a_layer_of_its_own(store):
    image = store.image()
    view = store.layers.mount_image(image, ONE)
    before = store.layers.records()
    with pytest.raises(OSError, match="Read-only"):
        (view / "new").touch()
    assert store.layers.mount_image(image, ONE) == view
    store.layers.unmount_image(image, ONE)
    store.layers.unmount_image(image, ONE)
    assert store.layers.records() == before
    assert mounted_below(store.root) == []


def test_mounts_are_counted_and_unmounting_may_be_repeated(store):
    store.container(ONE, driver(store), store.image())
    first, second = store.layers.mount(ONE), store.layers.mount(ONE)
    assert first == second
    store.layers.unmount(ONE)
    assert mounts.is_mounted(first)
    with pytest.raises(InUse), store.layers.held(ONE):
        pass
    for _ in range(2):
        store.layers.unmount(ONE)
        assert not first.exists()
    with store.layers.held(ONE):
        pass
    assert mounted_below(store.root) == []


def test_a_removed_layer_is_not_mounted(store):
    store.container(ONE, driver(store), store.image())
    store.layers.mount(ONE)
    store.layers.mount(ONE)
    store.layers.remove(ONE)
    assert mounted_below(store.root) == []


def test_usage_leaves_the_image_out(store):
    store.container(ONE, driver(store), store.image())
    with store.layers.mounted(ONE) as root:
        (root / "big").write_bytes(os.urandom(3 << 20))
        os.sync()
    store.container(TWO, driver(store), store.image())
    big, empty = store.layers.usage(ONE), store.layers.usage(TWO)
    assert big[0] >= 3 << 20
    assert big[0] - empty[0] < 4 << 20
    assert big[1] > big[0]


def test_options_of_several_drivers_stand_side_by_side(tmp_path):
    store = Store(tmp_path, default="vfs", options={"overlay2.size": "64m", "size": "32m"})
    store.container(ONE, "overlay2")
    store.container(TWO, "vfs")
    sizes = {}
    for container in (ONE, TWO):
        with store.layers.mounted(container) as root:
            found = os.statvfs(root)
            sizes[container] = found.f_blocks * found.f_frsize >> 20
    assert 32 < sizes[ONE] <= 64
    assert 16 < sizes[TWO] <= 32
    store.clear()
    store.close()


@pytest.mark.parametrize(
    ("default", "option", "said"),
    [
        ("vfs", "overlay2.siz", r"storage driver overlay2: unknown option 'overlay2.siz'.*size"),
        ("vfs", "btrfs.min_spac", r"storage driver btrfs: unknown option 'btrfs.min_spac'"),
        ("vfs", "dm.basesiz", r"storage driver devicemapper: unknown option 'dm.basesiz'"),
        ("overlay2", "vfs.nothing", r"storage driver vfs: unknown option 'nothing'"),
        ("overlay2", "nobody.knows", r"storage driver overlay2: unknown option 'nobody.knows'"),
        ("overlay2", "siz", r"storage driver overlay2: unknown option 'siz'"),
    ],
)
def test_an_unknown_option_is_refused_by_name_at_the_start(tmp_path, default, option, said):
    with pytest.raises(InvalidArgument, match=said):
        Store(tmp_path, default=default, options={option: "1g"})


def test_a_layer_with_a_limit_cannot_become_a_parent(store):
    call = store.layers.driver(driver(store)).call
    store.layers.create(ONE, None, options={"size": "64m"})
    with pytest.raises(FailedPrecondition):
        call.layer_commit(ONE)
