"""The network driver macvlan keeps to the contract, on a parent and without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from drivetrain.testing.network import UPLINK, NetworkConformance


class TestMacvlan(NetworkConformance):
    driver = "macvlan"
    options: ClassVar[Mapping[str, str]] = {"parent": UPLINK}
    on_parent = True


class TestMacvlanWithoutAParent(NetworkConformance):
    driver = "macvlan"
    outside = False
