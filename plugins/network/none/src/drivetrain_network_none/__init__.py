"""The none network driver: containers have a loopback interface and nothing else."""

from __future__ import annotations

from drivetrain import hookimpl
from drivetrain.network import Endpoint, Link, Network, NetworkTraits, Sandbox


class Nothing:
    """Makes no link."""

    @hookimpl
    def network_traits(self) -> NetworkTraits:
        return NetworkTraits(addresses=False, single=True, names=False)

    @hookimpl
    def network_create(self, network: Network) -> bool:
        return True

    @hookimpl
    def network_delete(self, network: Network) -> bool:
        return True

    @hookimpl
    def endpoint_join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Link:
        return Link()
