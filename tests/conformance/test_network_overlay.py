"""The network driver overlay keeps to the contract, as a cluster of one host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from drivetrain.testing.etcd import EtcdServer
from drivetrain.testing.network import NetworkConformance


class TestOverlay(NetworkConformance):
    driver = "overlay"
    driver_options = {"cluster-store": "etcd://127.0.0.1:2379"}  # noqa: RUF012
    etcd: EtcdServer

    @pytest.fixture(autouse=True)
    def _ended(self) -> Iterator[None]:
        yield
        self.etcd.close()

    def prepare(self) -> None:
        # In the namespace of the check's host, where the port is free.
        self.etcd = EtcdServer(port=2379)
        self.etcd.start()
