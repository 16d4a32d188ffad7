"""The machine loads no module by itself."""

from __future__ import annotations

import subprocess

import pytest


@pytest.fixture(scope="session", autouse=True)
def _modules() -> None:
    for module in ("loop", "ext4", "xfs", "overlay"):
        subprocess.run(["modprobe", module], check=True)
