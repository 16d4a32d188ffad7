"""The devicemapper driver keeps to the contract, with each kind of pool."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tests.vm.storage import pools

from drivetrain.testing.storage import StorageConformance

MIB = 1 << 20


class DeviceMapper(StorageConformance):
    driver = "devicemapper"

    def free_root(self, base: Path) -> None:
        left = [name for name in pools.devices() if name.startswith("engine-")]
        pools.free_all()
        assert [name for name in left if not name.endswith("-pool")] == []

    def reopened(self, **given: str) -> None:
        """Start again, with other options."""
        self.instance = self.new_driver()
        named = {key.replace("_", ".", 1): text for key, text in given.items()}
        options = self.parsed(self.instance, "storage_options", {**self.options, **named})
        self.instance.call.storage_open(self.root, options)

    def status(self) -> dict[str, str]:
        return dict(self.instance.call.storage_status())


class TestPoolInFiles(DeviceMapper):
    options: ClassVar = {
        "dm.fs": "ext4", "dm.basesize": "128m", "dm.loopdatasize": "1g",
        "dm.loopmetadatasize": "8m",
    }  # fmt: skip

    def test_it_is_said_that_files_are_not_for_production(self) -> None:
        assert "not for production" in self.status()["WARNING"]
        assert self.status()["Data loop file"] == str(self.root / "data")


class TestPoolByLvm(DeviceMapper):
    options: ClassVar = {"dm.fs": "ext4", "dm.basesize": "128m"}

    def make_root(self, base: Path) -> Path:
        device = pools.block_device(base / "disk", 1024 * MIB)
        type(self).options = {**self.options, "dm.directlvm_device": device}
        return super().make_root(base)


class TestPoolGiven(DeviceMapper):
    options: ClassVar = {"dm.thinpooldev": "mypool", "dm.basesize": "320m", "dm.fs": "xfs"}

    def make_root(self, base: Path) -> Path:
        pools.thin_pool(base, "mypool", 1024 * MIB)
        return super().make_root(base)
