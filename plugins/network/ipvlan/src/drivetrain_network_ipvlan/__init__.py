"""The ipvlan network driver: containers share the MAC address of an interface of the host.

Each container gets an ipvlan link on the network's *parent*: an interface of the host or a VLAN on
one. In mode ``l2`` it is a neighbour of the hosts there; in ``l3`` and ``l3s`` the parent routes,
and the container has a default route on the link without a gateway.

The kernel keeps one mode and one flag for all links on a parent, so a parent belongs to one
network.
"""

from __future__ import annotations

import errno
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import EngineError, InUse, InvalidArgument, NotSupported, Several
from drivetrain.host import stacking
from drivetrain.host.netlink import LinkInfo, Netlink
from drivetrain.host.parents import Parents
from drivetrain.network import Endpoint, Link, Network, NetworkState, Sandbox
from drivetrain.options import Option, Options
from drivetrain_network_ipvlan.options import (
    FLAGS,
    MODES,
    NETWORK_OPTIONS,
    IpvlanSettings,
    settings,
)


class Ipvlan:
    """Ipvlan networks of this host."""

    @hookimpl
    def network_options(self) -> Sequence[Option]:
        return NETWORK_OPTIONS

    @hookimpl
    def network_probe(self) -> bool:
        """Make an ipvlan link for real, in a namespace of its own."""
        stacking.probe("ipvlan", lambda netlink, *at: _stack(netlink, *at, "l2", "bridge"))
        return True

    @hookimpl
    def network_open(self, root: Path, options: Options) -> bool:
        self._netlink = Netlink()
        self._parents = Parents(self._netlink, root)
        self._networks: dict[str, IpvlanSettings] = {}
        self._lock = threading.Lock()
        return True

    @hookimpl
    def network_sync(self, networks: Sequence[NetworkState]) -> bool:
        failures: list[Exception] = []
        with self._lock:
            self._networks = {state.network.id: settings(state.network) for state in networks}
            for chosen in self._networks.values():
                try:
                    self._parent(chosen)
                except (EngineError, OSError) as error:
                    failures.append(error)
            self._sweep()
        if failures:
            raise Several("some ipvlan networks could not be restored", failures)
        return True

    def _parent(self, chosen: IpvlanSettings) -> LinkInfo:
        return self._parents.get(chosen.parent, closed=chosen.closed)

    def _sweep(self) -> None:
        """Delete our links on the host that no network needs."""
        self._parents.sweep({chosen.parent for chosen in self._networks.values()})

    @hookimpl
    def network_create(self, network: Network) -> bool:
        chosen = settings(network)
        with self._lock:
            for other_id, other in self._networks.items():
                if other.parent == chosen.parent and other_id != network.id:
                    raise InUse(
                        f"network {network.name}: parent {chosen.parent} belongs to network "
                        f"{other_id[:12]}; an ipvlan network shares its parent with no other: "
                        f"give several --subnet to one network, or a VLAN ({chosen.parent}.10)"
                    )
            self._networks[network.id] = chosen
            try:
                self._try(network, chosen, self._parent(chosen))
            except BaseException:
                del self._networks[network.id]
                self._sweep()
                raise
        return True

    def _try(self, network: Network, chosen: IpvlanSettings, parent: LinkInfo) -> None:
        """Make a link on the parent and remove it: what else the parent carries shows now."""
        stacking.check_mtu(network, parent)
        name = f"probe{secrets.token_hex(4)}"
        try:
            _stack(self._netlink, name, parent.index, chosen.mode, chosen.flag)
        except OSError as error:
            raise _refused(network, chosen, error) from error
        self._netlink.delete_link(name)

    @hookimpl
    def network_delete(self, network: Network) -> bool:
        with self._lock:
            self._networks.pop(network.id, None)
            self._sweep()
        return True

    @hookimpl
    def endpoint_join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Link:
        chosen = settings(network)
        with self._lock:
            parent = self._parent(chosen)
        try:
            _stack(
                self._netlink,
                endpoint.interface,
                parent.index,
                chosen.mode,
                chosen.flag,
                namespace=sandbox.path,
                mtu=chosen.mtu,
            )
        except OSError as error:
            raise _refused(network, chosen, error) from error
        with Netlink(sandbox.path) as inside:
            try:
                index = inside.index(endpoint.interface)
                # Here, and not left to the engine: a container that stopped just now with the same
                # address may be in the way for a moment.
                stacking.when_reaped(
                    lambda: inside.add_addresses(index, endpoint.addresses), {errno.EADDRINUSE}
                )
            except OSError as error:
                inside.delete_link(endpoint.interface)
                raise _refused(network, chosen, error) from error
        open_way = () if chosen.closed or chosen.routed else network.gateways(endpoint)
        return Link(
            name=endpoint.interface,
            gateways=open_way,
            default_route_on_link=chosen.routed and not chosen.closed,
            mtu=chosen.mtu,
            mac=parent.mac,
            sysctls=stacking.sysctls(),
        )

    @hookimpl
    def network_status(self) -> Sequence[tuple[str, str]]:
        parents = sorted({c.parent for c in self._networks.values() if not c.closed})
        return [("Parents", ", ".join(parents) or "none")]

    @hookimpl
    def network_close(self) -> bool:
        self._netlink.close()
        return True


def _stack(
    netlink: Netlink, name: str, parent: int, mode: str, flag: str, *,
    namespace: Path | None = None, mtu: int = 0,
) -> None:  # fmt: skip
    data = {"IFLA_IPVLAN_MODE": MODES[mode], "IFLA_IPVLAN_FLAGS": FLAGS[flag]}
    netlink.stack(name, "ipvlan", parent, data=data, namespace=namespace, mtu=mtu)


def _refused(network: Network, chosen: IpvlanSettings, error: OSError) -> EngineError:
    where = f"network {network.name}: parent {chosen.parent}"
    if error.errno == errno.EADDRINUSE:
        return InUse(f"{where} or a link on it has this address already: choose another one")
    if error.errno == errno.EBUSY:
        return InUse(
            f"{where} is in use: it is the port of a bridge or bond, or carries links of macvlan "
            f"(see: ip -d link show {chosen.parent})"
        )
    if error.errno == errno.EOPNOTSUPP and chosen.mode == "l3s":
        return NotSupported(f"{where}: this kernel has no ipvlan_mode=l3s (CONFIG_IPVLAN_L3S)")
    return InvalidArgument(f"{where} takes no ipvlan link: {error.strerror}")
