"""The btrfs driver keeps to the contract, on a btrfs of its own."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from drivetrain.errors import InvalidArgument, NotSupported
from drivetrain.host import btrfs, mounts, trees
from drivetrain.testing.storage import StorageConformance


def format_and_mount(base: Path, place: Path) -> None:
    image = base / "image"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop,commit=1", image, place], check=True)


class TestBtrfs(StorageConformance):
    driver = "btrfs"

    def make_root(self, base: Path) -> Path:
        format_and_mount(base, base / "fs")
        (base / "fs" / "driver").mkdir(mode=0o711)
        return base / "fs" / "driver"

    def free_root(self, base: Path) -> None:
        mounts.unmount(base / "fs", detach=False)

    def test_another_file_system_is_refused_with_the_reason(self) -> None:
        place = self.base / "elsewhere"
        place.mkdir()
        with pytest.raises(NotSupported, match=rf"{place} is not on btrfs: mkfs\.btrfs"):
            self.new_driver().call.storage_probe(place)

    def test_subvolumes_made_inside_a_layer_go_with_it(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            for name in ("inner", "inner/most", "other"):
                subprocess.run(["btrfs", "-q", "subvolume", "create", root / name], check=True)
            (root / "inner" / "most" / "file").write_text("x")
            btrfs.set_read_only(root / "inner" / "most", True)
        self.commit("a")
        self.instance.call.layer_remove("a")
        listed = ["btrfs", "subvolume", "list", self.base / "fs"]
        assert subprocess.check_output(listed, text=True) == ""

    def test_a_size_below_the_least_is_refused(self) -> None:
        self.instance = self.new_driver()
        options = self.parsed(self.instance, "storage_options", {"btrfs.min_space": "100m"})
        self.instance.call.storage_open(self.root, options)
        with pytest.raises(InvalidArgument, match=r"below btrfs\.min_space"):
            self.create("a", size="99m")
        self.create("b", size="100m")

    def test_a_size_counts_what_the_layer_itself_takes_up(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "big").write_bytes(os.urandom(48 << 20))
        self.commit("a")
        self.create("b", ["a"], size="32m")
        with self.mounted("b") as root:
            (root / "fits").write_bytes(os.urandom(16 << 20))
            os.sync()
            with pytest.raises(OSError) as full, (root / "big").open("r+b") as file:
                file.write(os.urandom(24 << 20))
                os.fsync(file.fileno())
        assert full.value.errno == errno.EDQUOT

    def test_the_quota_groups_of_removed_layers_are_removed(self) -> None:
        self.create("a", size="32m")
        identity = btrfs.info(self.root / "layers" / "a").id
        self.instance.call.layer_remove("a")
        subprocess.run(["btrfs", "subvolume", "sync", self.base / "fs"], check=True)
        self.instance = self.open()
        groups = subprocess.check_output(["btrfs", "qgroup", "show", self.base / "fs"], text=True)
        assert f"0/{identity}" not in groups
        assert list((self.root / "groups").iterdir()) == []

    def test_changes_are_those_that_a_full_comparison_finds(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            for folder in range(20):
                (root / f"d{folder}" / "deep").mkdir(parents=True)
                for file in range(20):
                    (root / f"d{folder}" / "deep" / f"f{file}").write_text(str(file))
            os.link(root / "d0" / "deep" / "f0", root / "d1" / "linked")
        self.commit("a")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "d1" / "linked").write_text("changed under both names")
            (root / "d2" / "deep" / "f1").unlink()
            (root / "d3").rename(root / "d4" / "moved")
            (root / "d5" / "deep" / "f1").rename(root / "d5" / "deep" / "f2")
            os.setxattr(root / "d6" / "deep", "user.x", b"y")
            (root / "d7" / "deep" / "f3").chmod(0o600)
            os.link(root / "d8" / "deep" / "f3", root / "d9" / "again")
        with self.mounted("b", read_only=True) as new, self.mounted("a", read_only=True) as old:
            everything = [(change.kind, change.path.decode()) for change in trees.compare(old, new)]
        assert self.changes("b") == everything
        assert ("modified", "/d0/deep/f0") in everything

    def test_usage_counts_only_what_was_written_since_the_snapshot(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            for number in range(50):
                (root / f"f{number}").write_bytes(os.urandom(128 << 10))
        self.commit("a")
        self.create("b", ["a"])
        nothing = self.instance.call.layer_usage("b", ("a",))
        with self.mounted("b") as root:
            (root / "f7").write_bytes(os.urandom(256 << 10))
        found = self.instance.call.layer_usage("b", ("a",))
        assert nothing is not None and nothing.size == 0
        assert found is not None and (found.size, found.inodes) == (256 << 10, 1)

    def test_a_full_file_system_is_said_and_leaves_nothing(self) -> None:
        self.filled("a", file="x")
        with self.mounted(self.create("b", ["a"])) as root:
            with pytest.raises(OSError) as full, (root / "big").open("wb") as file:
                while True:
                    file.write(os.urandom(1 << 20))
            assert full.value.errno == errno.ENOSPC
        self.instance.call.layer_remove("b")
        subprocess.run(["btrfs", "subvolume", "sync", self.base / "fs"], check=True)
        with self.mounted(self.create("c", ["a"])) as root:
            (root / "again").write_bytes(os.urandom(1 << 20))
