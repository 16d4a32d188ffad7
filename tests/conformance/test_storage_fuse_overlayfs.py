"""The fuse-overlayfs driver keeps to the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivetrain.errors import NotSupported
from drivetrain.host import mounts
from drivetrain.storage import Mount
from drivetrain.testing.hosts import eventually
from drivetrain.testing.storage import StorageConformance


def programs_for(folder: Path) -> int:
    count = 0
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = command.read_bytes()
        except OSError:
            continue
        count += text.startswith(b"fuse-overlayfs\0") and str(folder).encode() in text
    return count


class TestFuseOverlayfs(StorageConformance):
    driver = "fuse-overlayfs"
    odd_entries = False
    # A defect of the program: what is written by one of them may not be seen at the next mount.
    parted_names = False

    def test_a_process_serves_a_mounted_layer_and_ends_with_it(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b"):
            assert programs_for(self.root) == 1
        eventually(lambda: programs_for(self.root) == 0, "the program ends")

    def test_devices_and_set_user_ids_of_a_layer_work(self) -> None:
        self.filled("a", file="x")
        with self.mounted(self.create("b", ["a"])) as root:
            found = {entry.target: entry.options for entry in mounts.mount_table()}[str(root)]
            assert not {"nodev", "nosuid"} & set(found)

    def test_a_missing_program_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(NotSupported, match="apt-get install fuse-overlayfs"):
            self.new_driver().call.storage_probe(self.root)


def test_what_a_program_says_of_a_mount_that_fails_is_the_error(tmp_path: Path) -> None:
    place = tmp_path / "target"
    place.mkdir()
    nowhere = Mount("fuse.fuse-overlayfs", "none", (f"lowerdir={tmp_path}/nowhere",))
    with pytest.raises(OSError, match="No such file or directory"):
        mounts.mount((nowhere,), place)
    with pytest.raises(OSError, match=r"drivetrain-nothing at .*: no such program"):
        mounts.mount((Mount("fuse.drivetrain-nothing", "none"),), place)
    assert not mounts.is_mounted(place)
