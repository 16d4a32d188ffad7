"""What changed in a layer, by the driver's own hook or by comparing trees."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

from drivetrain.testing.base import needs
from drivetrain.testing.entries import describe, every_kind
from drivetrain.testing.storage.kit import StorageKit
from drivetrain.testing.storage.stacks import edit


class Differences(StorageKit):
    """Checks of ``layer_changes``, or of what the engine does without it, and of usage."""

    def test_changes_are_told_exactly(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            for name in ("kept", "deleted", "modified", "folder/inner", "gone/inner"):
                (root / name).parent.mkdir(exist_ok=True)
                (root / name).write_text("x")
        self.commit("a")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "deleted").unlink()
            (root / "modified").write_text("y")
            (root / "folder" / "added").touch()
            (root / "gone" / "inner").unlink()
            (root / "gone").rmdir()
            (root / "new").mkdir()
            (root / "new" / "file").touch()
        assert self.changes("b") == [
            ("deleted", "/deleted"),
            ("modified", "/folder"),
            ("added", "/folder/added"),
            ("deleted", "/gone"),
            ("modified", "/modified"),
            ("added", "/new"),
            ("added", "/new/file"),
        ]

    def test_a_layer_in_which_nothing_was_done_has_no_changes(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            assert (root / "file").read_text() == "x"
        assert self.changes("b") == []

    def test_all_of_a_base_layer_is_added(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "folder").mkdir()
            (root / "folder" / "file").touch()
        assert self.changes("a") == [("added", "/folder"), ("added", "/folder/file")]

    def test_an_edit_of_the_same_size_and_time_is_seen(self) -> None:
        self.filled("a", file="old")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            before = (root / "file").stat()
            (root / "file").write_text("new")
            os.utime(root / "file", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert ("modified", "/file") in self.changes("b")

    def test_a_change_of_owner_alone_is_seen(self) -> None:
        self.filled("a", file="x", other="y")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            os.chown(root / "file", 5, 6)
        assert self.changes("b") == [("modified", "/file")]

    def test_a_change_of_mode_attribute_or_time_alone_is_seen(self) -> None:
        self.filled("a", attribute="x", kept="x", mode="x", time="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "mode").chmod(0o711)
            os.setxattr(root / "attribute", "user.note", b"x")
            os.utime(root / "time", ns=(1, 10**18 + 1))
        assert self.changes("b") == [
            ("modified", "/attribute"),
            ("modified", "/mode"),
            ("modified", "/time"),
        ]

    def test_what_is_gone_of_a_directory_made_anew_is_told(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "folder").mkdir()
            for name in ("gone", "kept"):
                (root / "folder" / name).write_text(name)
        self.commit("a")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            shutil.rmtree(root / "folder")
            (root / "folder").mkdir()
            (root / "folder" / "kept").write_text("anew")
            (root / "folder" / "new").touch()
        assert self.changes("b") == [
            ("modified", "/folder"),
            ("deleted", "/folder/gone"),
            ("modified", "/folder/kept"),
            ("added", "/folder/new"),
        ]

    def test_changes_are_told_against_the_nearest_parent(self) -> None:
        self.filled("a", one="1", two="2")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "one").unlink()
            (root / "three").touch()
        self.commit("b")
        self.create("c", ["b", "a"])
        with self.mounted("c") as root:
            (root / "one").write_text("anew")
            (root / "three").unlink()
        assert self.changes("c") == [("added", "/one"), ("deleted", "/three")]

    def test_changes_of_a_mounted_layer_are_told(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "new").touch()
            assert self.changes("b") == [("added", "/new")]

    @needs("layer_changes")
    def test_the_drivers_own_changes_are_those_of_the_trees(self) -> None:
        parents: tuple[str, ...] = ()
        for number in range(4):
            key = f"layer{number}"
            self.create(key, parents)
            with self.mounted(key) as root:
                edit(root, random.Random(100 + number))
                (root / f"every{number}").mkdir()
                every_kind(root / f"every{number}", odd_entries=self.odd_entries)
            told = {(change.path, change.kind) for change in self.told(key)}
            seen = {(change.path, change.kind) for change in self.compared(key)}
            assert seen - told == set()
            # What was opened for writing and left as it was may be told; nothing else.
            assert {kind for _, kind in told - seen} <= {"modified"}
            self.commit(key)
            parents = (key, *parents)

    @needs("layer_snapshot_time")
    def test_what_a_snapshot_does_not_touch_is_told_without_reading_it(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            edit(root, random.Random(5))
            every_kind(root, odd_entries=self.odd_entries)
            (root / "big").mkdir()
            for number in range(8):
                (root / "big" / str(number)).write_bytes(os.urandom(1 << 20))
        self.commit("a")
        time.sleep(2.1)  # the change time of a file may tick in seconds
        self.create("b", ["a"])
        with self.mounted("b") as root:
            edit(root, random.Random(6))
        before = _read()
        told = self.told("b")
        assert _read() - before < 8 << 20
        assert told == self.compared("b") != []

    def test_changes_put_onto_the_parent_again_give_the_same_tree(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            edit(root, random.Random(7), links=self.parted_names)
        self.commit("a")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            edit(root, random.Random(8), links=self.parted_names)
        told = self.told("b")
        self.create("c", ["a"])
        with self.mounted("b", read_only=True) as source, self.mounted("c") as target:
            for change in told:
                name = os.fsdecode(change.path[1:])
                old, new = source / name, target / name
                if change.kind == "deleted" or not old.is_dir():
                    if new.is_dir() and not new.is_symlink():
                        shutil.rmtree(new)
                    else:
                        new.unlink(missing_ok=True)
                if change.kind != "deleted":
                    if old.is_dir():
                        if new.exists() and not new.is_dir():
                            new.unlink()
                        new.mkdir(exist_ok=True)
                    else:
                        shutil.copy2(old, new)
            assert _texts(describe(target)) == _texts(describe(source))

    @needs("layer_metadata")
    def test_metadata_is_text(self) -> None:
        self.create("a")
        self.commit("a")
        self.create("b", ["a"])
        for key, parents in (("a", ()), ("b", ("a",))):
            found = self.instance.call.layer_metadata(key, parents) or {}
            assert all(type(text) is str and text for pair in found.items() for text in pair)

    @needs("layer_usage")
    def test_usage_leaves_the_parents_out(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "big").write_bytes(os.urandom(4 << 20))
            os.sync()
        self.commit("a")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "small").write_bytes(os.urandom(64 << 10))
            os.sync()
        parent = self.instance.call.layer_usage("a", ())
        child = self.instance.call.layer_usage("b", ("a",))
        assert parent is not None and child is not None
        assert parent.size >= 4 << 20
        assert 64 << 10 <= child.size < 1 << 20


def _read() -> int:
    """Return how many bytes this process has read."""
    return int(Path("/proc/self/io").read_text().split()[1])


def _texts(described: dict[bytes, Any]) -> dict[bytes, tuple[Any, Any]]:
    return {
        path: (entry["mode"], entry.get("content"))
        for path, entry in described.items()
        if path != b"."
    }
