"""Limits of size on an ordinary file system: a sparse file that leaks nothing."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from drivetrain.errors import Exhausted, FailedPrecondition, InvalidArgument
from drivetrain.host import loops, mounts
from drivetrain.testing.storage import StorageConformance


def loop_devices_below(folder: Path) -> list[str]:
    found = subprocess.check_output(["losetup", "--list", "--noheadings", "-O", "BACK-FILE"])
    return [line for line in found.decode().splitlines() if line.startswith(f"{folder}/")]


class Limited(StorageConformance):
    """Beside the checks of the kit, which the drivers' own suites run."""

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        for name in vars(StorageConformance):
            if name.startswith("test_"):
                setattr(cls, name, None)

    def test_a_limited_layer_takes_up_what_is_written(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"], size="1g")
        used = sum(path.stat().st_blocks for path in self.root.rglob("image.ext4")) * 512
        assert 0 < used < 8 << 20
        with self.mounted("b") as root:
            (root / "big").write_bytes(os.urandom(16 << 20))
            os.sync()
            (root / "big").unlink()
            os.sync()
        used = sum(path.stat().st_blocks for path in self.root.rglob("image.ext4")) * 512
        assert used < 20 << 20

    def test_a_limited_layer_is_all_that_other_layers_are(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "kept").write_text("1")
            (root / "gone").mkdir()
        self.commit("a")
        self.create("b", ["a"], size="64m")
        with self.mounted("b") as root:
            (root / "gone").rmdir()
            (root / "kept").write_text("2")
            (root / "new").write_text("3")
            assert not (root / "lost+found").exists()
        with self.mounted("b") as root:
            assert sorted(os.listdir(root)) == ["kept", "new"]
        assert self.changes("b") == [
            ("deleted", "/gone"), ("modified", "/kept"), ("added", "/new"),
        ]  # fmt: skip

    def test_a_limited_layer_can_be_looked_at_while_it_is_written(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"], size="64m")
        with self.mounted("b") as root:
            (root / "mine").write_text("y")
            with self.mounted("b", read_only=True) as view:
                assert (view / "mine").read_text() == "y"
                with pytest.raises(OSError) as refused:
                    (view / "new").touch()
                assert refused.value.errno == errno.EROFS
                assert len(loop_devices_below(self.root)) == 1
            (root / "more").write_text("z")

    def test_no_loop_device_is_left(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"], size="64m")
        with self.mounted("b"):
            assert len(loop_devices_below(self.root)) == 1
        assert loop_devices_below(self.root) == []
        self.instance.call.layer_mounts("b", ("a",), False)
        self.instance.call.layer_remove("b")
        assert loop_devices_below(self.root) == []

    def test_a_limited_layer_is_found_mounted_after_a_restart(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"], size="64m")
        with self.mounted("b") as root:
            (root / "mine").write_text("y")
            self.instance.call.layer_unmounted("b")  # what a crash does: nobody holds the device
            self.instance = self.open()
            with self.mounted("b", read_only=True) as view:
                assert (view / "mine").read_text() == "y"
            assert len(loop_devices_below(self.root)) == 1
            (root / "mine").write_text("z")
        assert loop_devices_below(self.root) == []

    def test_a_limit_too_small_is_refused_and_nothing_is_left(self) -> None:
        before = sorted(self.root.rglob("*"))
        with pytest.raises(InvalidArgument, match="size: 4096 bytes are too few"):
            self.create("a", size="4096")
        assert sorted(self.root.rglob("*")) == before

    def test_a_limited_layer_is_no_parent(self) -> None:
        self.create("a", size="64m")
        with pytest.raises(FailedPrecondition, match="limit of size"):
            self.commit("a")

    def test_the_daemons_limit_is_for_containers_and_not_for_images(self) -> None:
        option = {"overlay2": "overlay2.size"}.get(self.driver, "size")
        self.instance = self.new_driver()
        options = self.parsed(self.instance, "storage_options", {option: "64m"})
        self.instance.call.storage_open(self.root, options)
        none = self.layer_options()
        for key, use in (("img", "image"), ("con", "container"), ("rm", "throwaway")):
            self.instance.call.layer_create(key, (), none, use)
            self.parents[key] = ()
        assert [
            len(self.instance.call.layer_mounts(key, (), False)) for key in ("img", "con", "rm")
        ] == [1, 2, 2]
        for key in self.parents:
            self.instance.call.layer_unmounted(key)


class TestOverlay2Limited(Limited):
    driver = "overlay2"


class TestVfsLimited(Limited):
    driver = "vfs"

    def test_a_parent_that_does_not_fit_is_said_and_leaves_nothing(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "big").write_bytes(os.urandom(24 << 20))
        self.commit("a")
        before = sorted(self.root.rglob("*"))
        with pytest.raises(Exhausted, match=r"cannot copy layer a: .*No space left"):
            self.create("b", ["a"], size="16m")
        assert sorted(self.root.rglob("*")) == before
        assert loop_devices_below(self.root) == []


def test_a_loop_device_lives_as_long_as_it_is_used(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    assert loops.find(image) is None
    device = loops.attach(image)
    again = loops.attach(image)
    assert again.path == device.path
    again.close()
    place = tmp_path / "mnt"
    place.mkdir()
    subprocess.run(["mount", device.path, place], check=True)
    device.close()
    device.close()
    assert loop_devices_below(tmp_path) == [str(image)]
    mounts.unmount(place, detach=False)
    assert loop_devices_below(tmp_path) == []
