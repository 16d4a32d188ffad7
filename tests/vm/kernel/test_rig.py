"""The second kernel is what the tests of the other folders need."""

import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["dm_thin_pool", "ipvlan", "8021q", "dummy", "esp4", "nfsd"])
def test_the_kernel_has_the_module(module: str) -> None:
    subprocess.run(["modprobe", module], check=True)


def test_cgroups_are_of_the_second_version() -> None:
    assert "cgroup2 /sys/fs/cgroup " in Path("/proc/mounts").read_text()
