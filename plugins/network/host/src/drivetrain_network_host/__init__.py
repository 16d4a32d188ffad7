"""The host network driver: containers are in the host's own network namespace."""

from __future__ import annotations

from drivetrain import hookimpl
from drivetrain.network import Endpoint, Link, Network, NetworkTraits, Sandbox


class Host:
    """Has nothing to make: the engine gives no sandbox to its containers."""

    @hookimpl
    def network_traits(self) -> NetworkTraits:
        return NetworkTraits(sandbox="host", addresses=False, single=True, names=False)

    @hookimpl
    def network_create(self, network: Network) -> bool:
        return True

    @hookimpl
    def network_delete(self, network: Network) -> bool:
        return True

    @hookimpl
    def endpoint_join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Link:
        return Link()
