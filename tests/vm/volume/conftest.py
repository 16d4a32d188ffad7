"""Servers of files for the tests of volumes; the machine loads no module by itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from tests.vm.volume.servers import NfsServer

MODULES = ("loop", "ext4", "xfs", "overlay", "nf_tables", "nfsd", "nfsv3", "nfsv4")


@pytest.fixture(scope="session", autouse=True)
def _modules() -> None:
    for module in MODULES:
        subprocess.run(["modprobe", module], check=True)


@pytest.fixture(scope="session")
def nfs_server(_modules: None) -> Iterator[NfsServer]:
    """An NFS server for all tests; one that a test cut off works again afterwards."""
    with NfsServer() as server:
        yield server
