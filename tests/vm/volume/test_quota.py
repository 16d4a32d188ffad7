"""Sizes of plain volumes where the file system limits projects."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from tests.volumes import Service

from drivetrain.host import mounts

MIB = 1 << 20


class OnProjectQuota:
    mkfs: ClassVar[tuple[str, ...]] = ()

    @pytest.fixture(scope="class")
    def place(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="fs-") as folder:
            image, place = Path(folder, "disk"), Path(folder, "fs")
            image.touch()
            os.truncate(image, 400 * MIB)
            place.mkdir()
            subprocess.run([*self.mkfs, image], check=True)
            subprocess.run(["mount", "-o", "loop,prjquota", image, place], check=True)
            yield place
            mounts.unmount(place)

    def test_a_volume_ends_at_its_size(self, place: Path) -> None:
        volumes = Service(place).volumes
        volumes.create("small", "local", {"size": "16m"})
        volumes.create("free")
        small, free = volumes.mount("small", "c1"), volumes.mount("free", "c1")
        assert not mounts.is_mounted(small), "a project needs no file system of its own"
        with pytest.raises(OSError) as full, (small / "big").open("wb") as file:
            file.write(os.urandom(24 * MIB))
            os.fsync(file.fileno())
        assert full.value.errno in (errno.EDQUOT, errno.ENOSPC)
        (small / "big").unlink()
        (small / "fits").write_bytes(os.urandom(8 * MIB))
        (free / "big").write_bytes(os.urandom(24 * MIB))
        os.sync()
        sizes = {one["Name"]: one["UsageData"]["Size"] for one in volumes.usage()}
        assert 8 * MIB <= sizes["small"] < 12 * MIB
        # a clone has the same limit, and one of its own
        volumes.unmount("small", "c1")
        volumes.clone("small", "copy")
        with pytest.raises(OSError), (volumes.mount("copy", "c1") / "more").open("wb") as file:
            file.write(os.urandom(12 * MIB))
            os.fsync(file.fileno())


class TestXfs(OnProjectQuota):
    mkfs = ("mkfs.xfs", "-q")


class TestExt4(OnProjectQuota):
    mkfs = ("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota")
