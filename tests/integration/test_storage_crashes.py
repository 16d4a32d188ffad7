"""A kill at any moment of create, commit, remove and migrate leaves a layer store that is whole."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from tests.layers import Store, supported

from drivetrain.registry import Registry
from drivetrain.testing.filesystems import file_system, loop_devices, mounted_below

KILLS = int(os.environ.get("KILLS", "200"))
#: Those of this machine; devicemapper has the second kernel, tests/vm.
DRIVERS = tuple(name for name in Registry().names("storage") if name != "devicemapper")
KEPT = "a" * 64


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        with file_system("btrfs", Path(folder), size=4096, options=("nobarrier",)) as root:
            yield root
            assert mounted_below(root) == []
        assert loop_devices(Path(folder)) == set()


def work(store: Store, driver: str, other: str) -> NoReturn:
    """Make, write, commit, move and remove layers until somebody ends it."""
    image = store.image()
    turn = 0
    while True:
        turn += 1
        container = f"{os.getpid():032x}{turn:032x}"
        store.container(container, driver, image)
        _note(store, container, "created")
        with store.layers.mounted(container) as root:
            (root / "mine").write_text(container)
            (root / "etc" / "6").unlink()
        store.migrate(container, other, image)
        store.migrate(container, driver, image)
        _note(store, container, "removing")
        store.layers.remove(container)
        # The image's layers too, so that unpacking and committing are killed as well.
        store.layers.discard_image_layers(keep_images=False)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_kill_at_any_moment_leaves_a_store_that_is_whole(place, driver):
    assert driver in supported(place)
    other = "overlay2" if driver == "vfs" else "vfs"
    chance = random.Random(driver)
    with tempfile.TemporaryDirectory(prefix="root-", dir=place) as folder:
        store = Store(Path(folder), default=driver)
        store.container(KEPT, driver, store.image())
        with store.layers.mounted(KEPT) as root:
            (root / "kept").write_text("kept")
        for _ in range(KILLS):
            child = os.fork()
            if child == 0:
                try:
                    store.reopen()
                    work(store, driver, other)
                finally:
                    os._exit(1)
            time.sleep(chance.uniform(0.005, 0.15))
            os.kill(child, signal.SIGKILL)
            assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the child ended by an error"
            store.reopen()
            _judge(store, driver, other)
        store.clear()
        assert _left(store, driver) == _left(store, other) == []
        store.close()


def _note(store: Store, container: str, word: str) -> None:
    """Write what the records of containers would say."""
    with (store.root / "journal").open("a") as journal:
        journal.write(f"{container} {word}\n")


def _noted(store: Store) -> set[str]:
    """Return the containers that are known, and not being removed."""
    journal = store.root / "journal"
    lines = journal.read_text().splitlines() if journal.exists() else []
    state = dict(line.split() for line in lines)
    return {KEPT} | {container for container, word in state.items() if word == "created"}


def _judge(store: Store, driver: str, other: str) -> None:
    """Look at everything as the daemon does at its start, then remove what the child had."""
    layers = store.layers
    containers = _noted(store)
    layers.reconcile(containers, set())
    assert mounted_below(store.root) == []
    pending = {one.container: one for one in layers.migrations.pending}
    assert {one.phase for one in pending.values()} <= {"copying"}
    for container in containers:
        assert layers.driver_of(container) in (driver, other)
        if container in pending:
            # Interrupted: the source is whole, and the move can go on.
            with layers.mounted(container) as root:
                assert (root / "mine").read_text() == container
                assert not (root / "etc" / "6").exists()
            store.migrate(container, pending[container].target, store.image())
        with layers.mounted(container) as root:
            assert (root / "etc" / "1").read_text() == "changed"
            if container == KEPT:
                assert (root / "kept").read_text() == "kept"
        if container != KEPT:
            layers.remove(container)
    assert [one.container for one in layers.records() if not one.committed] == [KEPT]
    assert list(layers.migrations.pending) == []
    (store.root / "journal").unlink(missing_ok=True)


def _left(store: Store, driver: str) -> list[str]:
    """Return what a driver still has on disk of layers; its own files have short names."""
    root = store.root / "storage" / driver
    return [path.name for path in root.rglob("*") if len(path.name) >= 32]
