"""The local volume driver against the kit: plain directories, tmpfs, and bind mounts."""

from pathlib import Path
from typing import ClassVar

import pytest

from drivetrain.testing.volume import VolumeConformance


class TestDirectories(VolumeConformance):
    driver = "local"


class TestTmpfs(VolumeConformance):
    driver = "local"
    persistent = False
    options: ClassVar = {"type": "tmpfs", "device": "tmpfs", "o": "size=32m,mode=0755"}


class TestBindMounts(VolumeConformance):
    driver = "local"

    @pytest.fixture(autouse=True)
    def _sources(self, tmp_path):
        self.sources: Path = tmp_path / "sources"

    def volume_options(self, name):
        source = self.sources / name
        source.mkdir(parents=True, exist_ok=True)
        return {"type": "none", "device": str(source), "o": "bind"}

    # the data is the host's: Docker does not remove it either
    test_removing_takes_the_data_away = None

    def test_removing_leaves_the_directory_of_the_host_alone(self):
        volume = self.made()
        (volume.mount() / "file").write_text("x")
        volume.remove()
        assert (self.sources / "data" / "file").read_text() == "x"


class TestLimitedDirectories(VolumeConformance):
    driver = "local"
    options: ClassVar = {"size": "32m"}
