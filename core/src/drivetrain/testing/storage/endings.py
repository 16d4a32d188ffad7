"""Removal, restarts, many at once, and processes that die in the middle."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

from drivetrain.host import flags, mounts
from drivetrain.testing.filesystems import mounted_below
from drivetrain.testing.storage.kit import StorageKit


class Endings(StorageKit):
    """Checks of what is left, and of what must be."""

    def left(self) -> list[Path]:
        """Return all that is in the driver's root."""
        return sorted(self.root.rglob("*"))

    def test_a_key_can_be_used_again_right_after_its_removal(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "old").touch()
        self.remove("a")
        with self.mounted(self.create("a")) as root:
            assert not (root / "old").exists()

    def test_creating_what_half_exists_starts_anew(self) -> None:
        self.filled("p", file="x")
        self.create("a", ["p"])
        with self.mounted("a") as root:
            (root / "old").touch()
        with self.mounted(self.create("a", ["p"])) as root:
            assert not (root / "old").exists()
            assert (root / "file").read_text() == "x"

    def test_removing_what_is_gone_or_never_was_is_fine(self) -> None:
        self.create("a")
        for _ in range(2):
            self.remove("a")
        self.remove("never")

    def test_immutable_files_go_with_their_layer(self) -> None:
        before = self.left()
        self.create("a")
        with self.mounted("a") as root:
            (root / "folder").mkdir()
            for name in ("file", "folder/inner"):
                (root / name).touch()
                descriptor = os.open(root / name, os.O_RDONLY)
                try:
                    flags.set_flags(descriptor, flags.IMMUTABLE)
                except OSError:
                    (root / name).unlink()  # a file system without such flags
                finally:
                    os.close(descriptor)
        self.remove("a")
        assert self.left() == before

    def test_keys_of_64_characters_and_of_one_are_fine(self) -> None:
        for key in ("0", "f" * 64):
            self.filled(key, file=key)
            with self.mounted(self.create("child", [key])) as root:
                assert (root / "file").read_text() == key
            self.remove("child")

    def test_committing_and_unmounting_may_be_repeated(self) -> None:
        self.filled("a", file="x")
        self.commit("a")
        for _ in range(2):
            self.instance.call.layer_unmounted("a")
        with self.mounted(self.create("b", ["a"])) as root:
            assert (root / "file").read_text() == "x"

    def test_asking_for_mounts_changes_nothing(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            for read_only in (True, False):
                assert self.instance.call.layer_mounts("b", ("a",), read_only)
            (root / "file").write_text("y")
        with self.mounted("b", read_only=True) as root:
            assert (root / "file").read_text() == "y"
        self.instance.call.layer_mounts("b", ("a",), False)
        self.instance.call.layer_unmounted("b")

    def test_nothing_is_left_of_removed_layers(self) -> None:
        before = self.left()
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "file").write_text("y")
        for key in ("b", "a"):
            self.remove(key)
        assert self.left() == before

    def test_layers_are_there_after_a_restart(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "mine").touch()
        self.instance.call.storage_close()
        self.instance.call.storage_close()
        self.instance = self.open()
        with self.mounted("b") as root:
            assert {"file", "mine"} <= set(os.listdir(root))

    def test_a_layer_stays_mounted_over_a_restart(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            self.instance = self.open()
            (root / "file").write_text("x")
            assert self.instance.call.layer_mounts("a", (), False)
        with self.mounted("a") as root:
            assert (root / "file").read_text() == "x"

    def test_many_layers_are_made_and_removed_at_once(self) -> None:
        self.filled("base", file="x")

        def work(number: int) -> None:
            for turn in range(5):
                key = f"k{number}t{turn}"
                self.create(key, ["base"])
                with self.mounted(key) as root:
                    assert (root / "file").read_text() == "x"
                self.remove(key)

        assert _at_once(6, work) == []

    def test_a_parent_is_removed_while_others_are_made(self) -> None:
        self.filled("base", file="x")
        for number in range(6):
            self.filled(f"old{number}", ["base"], file="y")

        def work(number: int) -> None:
            self.remove(f"old{number}")
            self.filled(f"new{number}", ["base"], file="z")

        assert _at_once(6, work) == []
        for number in range(6):
            with self.mounted(f"new{number}", read_only=True) as root:
                assert (root / "file").read_text() == "z"

    def test_a_kill_at_any_moment_leaves_what_can_be_opened_again(self) -> None:
        self.filled("base", file="x")
        before = self.left()
        chance = random.Random(4)
        self.instance.call.storage_close()
        for turn in range(self.kills):
            journal = self.base / f"journal{turn}"
            with _killed(partial(self._work, journal)) as begun:
                _wait_for(journal)
                time.sleep(chance.uniform(0, 0.06))
                os.kill(begun, signal.SIGKILL)
            for place in mounted_below(self.base):
                if place.startswith(f"{self.base}/mnt-"):
                    mounts.unmount(Path(place))
            self.instance = self.open()
            self._judge(journal.read_text().split("\n"))
            assert self.left() == before
            self.instance.call.storage_close()
        self.instance = self.open()

    def _work(self, journal: Path) -> NoReturn:
        """Make, commit and remove layers until somebody ends it; say each step before and after."""
        self.instance = self.open()
        with journal.open("w", buffering=1) as log:
            turn = 0
            while True:
                one, other = f"one{turn}", f"other{turn}"
                log.write(f"{one} begun\n")
                self.filled(one, ["base"], file=one, more="m" * 5000)
                log.write(f"{one} committed\n{other} begun\n")
                self.filled(other, [one, "base"], file=other)
                log.write(f"{other} committed\n{other} removing\n")
                self.remove(other)
                log.write(f"{one} removing\n")
                self.remove(one)
                turn += 1

    def _judge(self, lines: list[str]) -> None:
        """Look at what the journal says is whole, then remove everything it names."""
        state = dict(line.split(" ") for line in lines if line.count(" ") == 1)
        for turn in range(len(state)):
            self.parents |= {f"one{turn}": ("base",), f"other{turn}": (f"one{turn}", "base")}
        with self.mounted("base", read_only=True) as root:
            assert (root / "file").read_text() == "x"
        for key, reached in state.items():
            if reached == "committed":
                with self.mounted(key, read_only=True) as root:
                    assert (root / "file").read_text() == key
        # Children first; what was gone already is removed once more, as the engine does.
        for key in sorted(state, key=lambda name: name.startswith("one")):
            self.remove(key)


def _at_once(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Run ``work`` in threads and return what they raised."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return failures


@contextlib.contextmanager
def _killed(work: Callable[[], NoReturn]) -> Iterator[int]:
    """Run ``work`` in a child process, which has to be killed inside the context."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)  # only an error comes here
    try:
        yield child
    finally:
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child ended before it was killed"


def _wait_for(journal: Path) -> None:
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size):
        assert time.monotonic() < deadline, "the child never began"
        time.sleep(0.001)
