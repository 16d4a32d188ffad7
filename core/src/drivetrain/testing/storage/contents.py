"""What a layer holds: nothing at first, then every kind of entry with every attribute."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from drivetrain.testing.entries import describe, every_kind
from drivetrain.testing.storage.kit import StorageKit


class Contents(StorageKit):
    """Checks of one layer, and of the child that sees it."""

    def test_an_empty_layer_is_an_empty_directory_of_root(self) -> None:
        with self.mounted(self.create("a")) as root:
            found = root.stat()
            assert stat.S_IMODE(found.st_mode) == 0o755
            assert (found.st_uid, found.st_gid) == (0, 0)
            assert [name for name in os.listdir(root) if name != "lost+found"] == []

    def test_what_was_written_is_there_at_the_next_mount(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "file").write_text("kept")
        with self.mounted("a") as root:
            assert (root / "file").read_text() == "kept"

    def test_every_kind_of_entry_with_all_attributes_survives_a_commit(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            every_kind(root, odd_entries=self.odd_entries)
            before = _all(root)
        self.commit("a")
        with self.mounted("a", read_only=True) as root:
            assert _all(root) == before
        with self.mounted(self.create("b", ["a"])) as root:
            assert _all(root) == before

    def test_every_kind_of_entry_can_be_made_above_a_parent(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            every_kind(root, odd_entries=self.odd_entries)
            before = _all(root)
        with self.mounted("b", read_only=True) as root:
            assert _all(root) == before
        self.commit("b")
        with self.mounted(self.create("c", ["b", "a"])) as root:
            assert _all(root) == before

    def test_the_root_itself_keeps_its_attributes(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            os.chown(root, 7, 8)
            root.chmod(0o2710)
            os.setxattr(root, "user.note", b"root")
        self.commit("b")
        with self.mounted(self.create("c", ["b", "a"])) as root:
            found = root.stat()
            assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o2710, 7, 8)
            assert os.getxattr(root, "user.note") == b"root"

    def test_a_parent_is_seen_and_never_changed(self) -> None:
        self.filled("a", one="1", two="2")
        with self.mounted("a", read_only=True) as root:
            before = _all(root)
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "one").write_text("changed")
            (root / "two").unlink()
            (root / "three").touch()
            root.chmod(0o700)
        with self.mounted("a", read_only=True) as root:
            assert _all(root) == before

    def test_children_of_one_parent_do_not_see_each_other(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        self.create("c", ["a"])
        with self.mounted("b") as one, self.mounted("c") as other:
            (one / "file").write_text("of b")
            (one / "mine").touch()
            assert (other / "file").read_text() == "x"
            assert not (other / "mine").exists()

    def test_a_view_cannot_be_written(self) -> None:
        self.filled("a", file="x")
        self.filled("b", ["a"], other="y")
        for key in ("a", "b"):
            with self.mounted(key, read_only=True) as root:
                attempts: tuple[Callable[[], object], ...] = (
                    (root / "new").touch,
                    partial((root / "file").write_text, "y"),
                    partial((root / "file").chmod, 0o600),
                    (root / "file").unlink,
                )
                for attempt in attempts:
                    with pytest.raises(OSError) as refused:
                        attempt()
                    assert refused.value.errno == errno.EROFS
                assert (root / "file").read_text() == "x"

    def test_a_layer_is_mounted_at_several_places_at_once(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with (
            self.mounted("b") as root,
            self.mounted("a", read_only=True) as one,
            self.mounted("a", read_only=True) as other,
        ):
            assert {(each / "file").read_text() for each in (root, one, other)} == {"x"}

    def test_an_inode_keeps_its_number_when_a_file_of_the_parent_is_changed(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            before = (root / "file").stat().st_ino
            with (root / "file").open("a") as file:
                file.write("y")
            assert (root / "file").stat().st_ino == before


def _all(root: Path) -> dict[bytes, Any]:
    """Describe a tree; when its root was changed is nobody's business but the driver's."""
    described = describe(root)
    del described[b"."]["modified"]
    return described
