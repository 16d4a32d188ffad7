"""The network drivers bridge, host and none keep to the contract; macvlan: beside; ipvlan: vm."""

from __future__ import annotations

from drivetrain.testing.network import NetworkConformance


class TestBridge(NetworkConformance):
    driver = "bridge"


class TestHost(NetworkConformance):
    driver = "host"


class TestNone(NetworkConformance):
    driver = "none"
