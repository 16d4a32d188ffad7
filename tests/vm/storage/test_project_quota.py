"""Limits by project quota: overlay2 and vfs on xfs, overlay2 on ext4."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from tests.vm.storage import pools
from tests.vm.storage.pools import without_the_kit

from drivetrain.host import mounts, quota
from drivetrain.testing.hosts import eventually
from drivetrain.testing.storage import StorageConformance

MIB = 1 << 20


class OnProjectQuota(StorageConformance):
    # Quotas do not change with either, and the machine is an emulated one.
    depth = 32
    kills = 4
    mkfs: ClassVar[tuple[str, ...]] = ("mkfs.xfs", "-q")

    place: ClassVar[Path]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _file_system(cls) -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="fs-") as folder:
            cls.place = Path(folder)
            device = pools.block_device(cls.place / "disk", 400 * MIB)
            pools.run(*cls.mkfs, device)
            (cls.place / "fs").mkdir()
            pools.run("mount", "-o", "prjquota", device, cls.place / "fs")
            try:
                yield
            finally:
                mounts.unmount(cls.place / "fs", detach=False)
                pools.free_all()

    def make_root(self, base: Path) -> Path:
        return Path(tempfile.mkdtemp(prefix="driver-", dir=self.place / "fs"))

    def free_root(self, base: Path) -> None:
        shutil.rmtree(self.root)

    def test_a_limit_is_a_project_and_needs_no_file_system_of_its_own(self) -> None:
        assert dict(self.instance.call.storage_status())["Limits of Size"] == "project quota"
        self.filled("a", file="x")
        self.create("b", ["a"], size="16m")
        assert len(self.instance.call.layer_mounts("b", ("a",), False)) == 1
        assert list(self.root.rglob("image.ext4")) == []
        with self.mounted("b") as root:
            with pytest.raises(OSError) as full, (root / "big").open("wb") as file:
                file.write(os.urandom(24 * MIB))
                os.fsync(file.fileno())
            assert full.value.errno in (errno.EDQUOT, errno.ENOSPC)
            (root / "big").unlink()
            (root / "small").write_bytes(os.urandom(4 * MIB))

    def test_limits_are_apart_and_gone_with_their_layers(self) -> None:
        keys = [self.create(f"k{number}", size=f"{8 + number}m") for number in range(3)]
        numbers = [quota.project(self.root / key) for key in keys]
        # Not the first ones, while xfs still frees those of an earlier test.
        assert len(set(numbers)) == 3 and min(numbers) >= quota.FIRST
        for key in keys:
            self.instance.call.layer_remove(key)
        # xfs frees what was removed a moment later.
        eventually(
            lambda: not any(quota.used(self.root, number) for number in numbers),
            "the projects are free again",
        )


class TestOverlay2OnXfs(OnProjectQuota):
    driver = "overlay2"


@without_the_kit
class TestVfsOnXfs(OnProjectQuota):
    driver = "vfs"

    def test_a_copy_shares_its_blocks(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "big").write_bytes(os.urandom(64 * MIB))
            os.sync()
        self.commit("a")
        before = os.statvfs(self.root).f_bfree
        for number in range(4):
            self.create(f"b{number}", ["a"])
        os.sync()
        found = os.statvfs(self.root)
        assert (before - found.f_bfree) * found.f_frsize < 16 * MIB


@without_the_kit
class TestOverlay2OnExt4(OnProjectQuota):
    driver = "overlay2"
    mkfs: ClassVar = ("mkfs.ext4", "-q", "-O", "project,quota")
