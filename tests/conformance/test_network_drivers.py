"""The network drivers bridge, host, none and macvlan keep to the contract; ipvlan: tests/vm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from drivetrain.testing.network import UPLINK, NetworkConformance


class TestBridge(NetworkConformance):
    driver = "bridge"


class TestHost(NetworkConformance):
    driver = "host"


class TestNone(NetworkConformance):
    driver = "none"


class TestMacvlan(NetworkConformance):
    driver = "macvlan"
    options: ClassVar[Mapping[str, str]] = {"parent": UPLINK}
    on_parent = True


class TestMacvlanWithoutAParent(NetworkConformance):
    driver = "macvlan"
    outside = False
