"""The network drivers bridge, host and none keep to the contract."""

from __future__ import annotations

from drivetrain.testing.network import NetworkConformance


class TestBridge(NetworkConformance):
    driver = "bridge"


class TestHost(NetworkConformance):
    driver = "host"


class TestNone(NetworkConformance):
    driver = "none"
