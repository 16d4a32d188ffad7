"""The network driver ipvlan keeps to the contract; macvlan does so on this machine's kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drivetrain.network import Network
from drivetrain.testing.network import UPLINK, NetworkConformance


class TestIpvlan(NetworkConformance):
    """A parent belongs to one network: the first one has it, the others are internal."""

    driver = "ipvlan"
    on_parent = True

    def plan(
        self, number: int = 0, *, versions: Sequence[int] | None = None, internal: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> Network:  # fmt: skip
        chosen = {"parent": UPLINK} if number == 0 and not internal else {}
        return super().plan(
            number, versions=versions, internal=internal, options={**chosen, **(options or {})}
        )
