"""The vfs driver keeps to the contract."""

from __future__ import annotations

from drivetrain.testing.storage import StorageConformance


class TestVfs(StorageConformance):
    driver = "vfs"
