"""Limits of plain volumes by project quota, on xfs and ext4."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from tests.volumes import Service

from drivetrain.host import quota
from drivetrain.testing.capabilities import bound_by_quotas
from drivetrain.testing.filesystems import MIB, file_system
from drivetrain.testing.hosts import eventually
from drivetrain.testing.volume import VolumeConformance

MAKE: dict[str, tuple[str, ...]] = {"xfs": (), "ext4": ("-O", "project,quota")}


class OnProjectQuota(VolumeConformance):
    driver = "local"
    options: ClassVar = {"size": "16m"}
    kind: ClassVar[str]
    place: ClassVar[Path]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _file_system(cls) -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="fs-") as folder:
            with file_system(
                cls.kind, Path(folder), size=400, make=MAKE[cls.kind], options=("prjquota",)
            ) as cls.place:
                yield

    def driver_root(self, tmp_path: Path) -> Path:
        return Path(tempfile.mkdtemp(prefix="driver-", dir=self.place))

    def test_a_limit_is_a_project_and_needs_no_file_system_of_its_own(self) -> None:
        volume = self.made()
        path = volume.mount()
        assert quota.project(path) >= quota.FIRST
        assert list(self.root.rglob("image.ext4")) == []
        with bound_by_quotas(), pytest.raises(OSError) as full, (path / "big").open("wb") as file:
            for _ in range(24):
                file.write(os.urandom(MIB))
                os.fsync(file.fileno())
        assert full.value.errno in (errno.EDQUOT, errno.ENOSPC)
        found = os.statvfs(path)
        assert found.f_blocks * found.f_frsize <= 16 * MIB, "df shows the limit"
        usage = self.instance.call.volume_usage(volume.name, volume.options)
        assert usage is not None and 8 * MIB < usage.size <= 16 * MIB
        (path / "big").unlink()
        (path / "folder").mkdir()
        (path / "folder" / "small").write_bytes(os.urandom(4 * MIB))

    def test_limits_are_apart_and_gone_with_their_volumes(self) -> None:
        made = [self.made(f"data{number}") for number in range(3)]
        numbers = {quota.project(volume.mount()) for volume in made}
        assert len(numbers) == 3
        for volume in made:
            volume.remove()
        eventually(
            lambda: not any(quota.used(self.place, number) for number in numbers),
            "the projects are free again",
        )


class TestOnXfs(OnProjectQuota):
    kind = "xfs"


class TestOnExt4(OnProjectQuota):
    kind = "ext4"


# what has nothing to do with quotas was tried on xfs
for _name in dir(VolumeConformance):
    if _name.startswith("test_") and "size" not in _name:
        setattr(TestOnExt4, _name, None)


@pytest.mark.parametrize("kind", ["xfs", "ext4"])
def test_a_clone_of_a_limited_volume_has_a_limit_of_its_own(kind: str, tmp_path: Path) -> None:
    with file_system(kind, tmp_path, size=400, make=MAKE[kind], options=("prjquota",)) as place:
        (place / "engine").mkdir()
        service = Service(place / "engine")
        service.volumes.create("data", options={"size": "16m"})
        path = service.volumes.mount("data", "c1")
        (path / "file").write_bytes(os.urandom(10 * MIB))
        service.volumes.unmount("data", "c1")
        service.volumes.contents.copy("clone", "data", "copy")
        copy = service.volumes.mount("copy", "c1")
        assert quota.project(copy) != quota.project(path)
        with bound_by_quotas(), pytest.raises(OSError):
            (copy / "more").write_bytes(os.urandom(10 * MIB))
            os.sync()
        (path / "more").write_bytes(os.urandom(4 * MIB))
        service.state.close()
        shutil.rmtree(place / "engine")
