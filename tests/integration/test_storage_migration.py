"""Containers' layers move between all storage drivers of a host and stay what they are."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.layers import Store, live, supported

from drivetrain.errors import InUse, NotFound, NotSupported
from drivetrain.host.flags import IMMUTABLE
from drivetrain.testing.entries import describe
from drivetrain.testing.filesystems import file_system, mounted_below, run
from drivetrain_engine.layers.surveying import survey

#: Entries of the tree that is moved between all pairs of drivers.
FILES = 10_000
CONTAINER = "c" * 64


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A btrfs: all drivers that this kernel has work there."""
    with tempfile.TemporaryDirectory(prefix="migrate-") as folder:
        with file_system("btrfs", Path(folder), size=8192) as root:
            yield root
            assert mounted_below(root) == []


@pytest.fixture
def store(place) -> Iterator[Store]:
    with tempfile.TemporaryDirectory(prefix="root-", dir=place) as folder:
        opened = Store(Path(folder))
        try:
            yield opened
        finally:
            opened.clear()
            assert opened.layers.records() == []
            opened.close()


def drivers(place: Path) -> tuple[str, ...]:
    found = supported(place)
    assert {"overlay2", "vfs"} <= set(found)
    return found


def diff(store: Store) -> set[tuple[bytes, str]]:
    return {(change.path, change.kind) for change in store.layers.changes(CONTAINER)}


def content(store: Store) -> dict[bytes, object]:
    with store.layers.mounted(CONTAINER) as root:
        found = describe(root)
    del found[b"."]["modified"]
    # No archive says when a directory was made that it has no entry for.
    for name in (b"implied", b"later"):
        found.get(name, {}).pop("modified", None)
    return found


def holds_odd_entries(store: Store, driver: str) -> bool:
    """Tell whether a driver's layers can have names that mean deletions in archives."""
    store.container(CONTAINER, driver, store.image())
    try:
        with store.layers.mounted(CONTAINER) as root:
            (root / ".wh.name").touch()
    except OSError:
        return False
    finally:
        store.layers.remove(CONTAINER)
    return True


def test_a_tree_of_every_kind_of_entry_is_the_same_on_every_driver(store, place):
    """One walk over the drivers that takes every ordered pair of them once.

    Each look at a file below a mount in user space takes a hundred times as long: a small tree.
    """
    names = drivers(place)
    kernel = tuple(name for name in names if not name.startswith("fuse"))
    walk(store, "vfs", every_pair(kernel), FILES, odd_entries=False)
    store.layers.remove(CONTAINER)
    walk(store, "vfs", every_pair(names), 100, odd_entries=False)


def test_names_that_mean_deletions_in_archives_are_names_on_drivers_that_hold_them(store, place):
    names = tuple(name for name in drivers(place) if holds_odd_entries(store, name))
    assert len(names) >= 2
    walk(store, "vfs", every_pair(names), 500, odd_entries=True)


def walk(
    store: Store, first: str, targets: Sequence[str], files: int, *, odd_entries: bool
) -> None:
    """Make a container and move it from driver to driver; it stays what it was.

    Args:
        store: where.
        first: its driver; one that finds differences by comparing trees tells them exactly.
        targets: where it goes, one after the other.
        files: how many entries it has.
        odd_entries: see ``every_kind``.
    """
    image = store.image()
    store.container(CONTAINER, first, image)
    with store.layers.mounted(CONTAINER) as root:
        live(root, files, odd_entries=odd_entries)
    before, changed = content(store), diff(store)
    assert len(before) >= files
    for target in targets:
        progress = store.migrate(CONTAINER, target, image)
        assert progress[-1].step == "migrated"
        assert store.layers.driver_of(CONTAINER) == target
        assert content(store) == before, target
        # Some drivers tell too of files that were opened for writing, or linked, and left alone.
        assert changed - diff(store) == set(), target
        assert {kind for _, kind in diff(store) - changed} <= {"modified"}, target
        assert [one.driver for one in store.layers.records() if one.container] == [target]
        assert list(store.layers.migrations.pending) == []


def every_pair(names: Iterable[str]) -> list[str]:
    """Return where to go, from vfs on, to take every ordered pair once.

    The pairs are the edges of a graph in which as many lead to each name as leave it; Hierholzer's
    walk takes each edge once.
    """
    names = sorted(names, key=lambda name: name != "vfs")
    edges = {name: [other for other in names if other != name] for name in names}
    stack, walked = [names[0]], []
    while stack:
        if edges[stack[-1]]:
            stack.append(edges[stack[-1]].pop())
        else:
            walked.append(stack.pop())
    assert len(walked) == len(names) * (len(names) - 1) + 1
    return walked[::-1][1:]


def test_a_container_without_an_image_moves(store, place):
    for source, target in (("vfs", "overlay2"), ("overlay2", "vfs")):
        store.container(CONTAINER, source)
        with store.layers.mounted(CONTAINER) as root:
            (root / "file").write_text("x")
        store.migrate(CONTAINER, target)
        with store.layers.mounted(CONTAINER) as root:
            assert (root / "file").read_text() == "x"
        store.layers.remove(CONTAINER)


def test_an_immutable_file_stays_immutable_and_can_be_removed_with_its_container(store):
    store.container(CONTAINER, "vfs", store.image())
    with store.layers.mounted(CONTAINER) as root:
        run("chattr", "+i", str(root / "etc" / "3"))
    for target in ("overlay2", "vfs"):
        store.migrate(CONTAINER, target, store.image())
        with store.layers.mounted(CONTAINER) as root:
            assert survey(root).flags[b"/etc/3"] & IMMUTABLE
            with pytest.raises(PermissionError):
                (root / "etc" / "3").write_text("y")
    store.layers.remove(CONTAINER)
    with pytest.raises(NotFound):
        store.layers.driver_of(CONTAINER)


def test_a_device_that_overlayfs_takes_for_a_deletion_is_named_and_the_container_stays(store):
    store.container(CONTAINER, "vfs", store.image())
    with store.layers.mounted(CONTAINER) as root:
        os.mknod(root / "etc" / "look-alike", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    before = content(store)
    with pytest.raises(NotSupported) as refused:
        store.migrate(CONTAINER, "overlay2", store.image())
    assert "overlay2 cannot hold /etc/look-alike: character device 0:0" in str(refused.value)
    assert "remove the file" in str(refused.value)
    assert store.layers.driver_of(CONTAINER) == "vfs"
    assert content(store) == before
    assert list(store.layers.migrations.pending) == []


def test_odd_entries_of_whiteouts_move_where_both_drivers_hold_them(store, place):
    names = [name for name in drivers(place) if name in ("vfs", "btrfs")]
    store.container(CONTAINER, names[0], store.image())
    with store.layers.mounted(CONTAINER) as root:
        os.mknod(root / "etc" / "look-alike", stat.S_IFCHR | 0o600, os.makedev(0, 0))
        os.setxattr(root / "etc", "trusted.overlay.opaque", b"y")
    before = content(store)
    for target in reversed(names):
        if target != store.layers.driver_of(CONTAINER):
            store.migrate(CONTAINER, target, store.image())
        assert content(store) == before


def test_a_layer_that_somebody_reads_is_not_moved(store):
    store.container(CONTAINER, "vfs", store.image())
    with store.layers.mounted(CONTAINER), pytest.raises(InUse, match="in use"):
        store.migrate(CONTAINER, "overlay2", store.image())


def test_who_stops_listening_stops_the_move_and_nothing_is_left(store):
    store.container(CONTAINER, "vfs", store.image())
    with store.layers.mounted(CONTAINER) as root:
        live(root, 600)
    before = content(store)
    with store.layers.held(CONTAINER):
        moving = store.layers.migrations.migrate(CONTAINER, store.image(), "overlay2")
        while next(moving).step != "copying":
            pass
        moving.close()
    assert store.layers.driver_of(CONTAINER) == "vfs"
    assert content(store) == before
    assert [one.key for one in store.layers.records() if not one.committed] == [CONTAINER]
    assert list(store.layers.migrations.pending) == []


def test_an_interrupted_move_goes_on_where_it_was(store):
    store.container(CONTAINER, "vfs", store.image())
    with store.layers.mounted(CONTAINER) as root:
        live(root, 2000)
    before = content(store)
    child = os.fork()
    if child == 0:
        for progress in store.layers.migrations.migrate(CONTAINER, store.image(), "overlay2"):
            if progress.step == "copying" and progress.done >= 800:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    store.reopen()
    store.layers.reconcile({CONTAINER}, set())
    assert [one.phase for one in store.layers.migrations.pending] == ["copying"]
    assert store.layers.driver_of(CONTAINER) == "vfs"
    assert content(store) == before
    progress = store.migrate(CONTAINER, "overlay2", store.image())
    copied = [step.total for step in progress if step.step == "copying"]
    assert 0 < copied[0] <= len(before) - 800
    assert content(store) == before
