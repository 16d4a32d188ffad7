"""The macvlan network driver: containers are hosts of their own on the network of an interface.

Each container gets a macvlan link on the network's *parent*: an interface of the host or a VLAN on
one. The kernel keeps the host itself apart from the links on its interface; what ``host_access``
does about that is in :mod:`drivetrain_network_macvlan.host_access`. Addresses from the network's
own DHCP server are in :mod:`drivetrain_network_macvlan.dhcp`.
"""

from __future__ import annotations

import errno
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import EngineError, InUse, InvalidArgument, Several
from drivetrain.host import stacking
from drivetrain.host.netlink import LinkInfo, Netlink
from drivetrain.host.parents import Parents
from drivetrain.network import (
    Endpoint,
    Interface,
    Link,
    Network,
    NetworkState,
    Sandbox,
)
from drivetrain.options import Option, Options
from drivetrain_network_macvlan.dhcp import Dhcp
from drivetrain_network_macvlan.host_access import HostAccess
from drivetrain_network_macvlan.options import NETWORK_OPTIONS, MacvlanSettings, settings


class Macvlan:
    """Macvlan networks of this host."""

    @hookimpl
    def network_options(self) -> Sequence[Option]:
        return NETWORK_OPTIONS

    @hookimpl
    def network_probe(self) -> bool:
        """Make a macvlan link for real, in a namespace of its own."""
        stacking.probe("macvlan", lambda netlink, *at: _stack(netlink, *at, "bridge"))
        return True

    @hookimpl
    def network_open(self, root: Path, options: Options) -> bool:
        self._netlink = Netlink()
        self._parents = Parents(self._netlink, root)
        self._access = HostAccess(self._netlink, self._parents.alias)
        self._dhcp = Dhcp(root)
        self._networks: dict[str, MacvlanSettings] = {}
        self._lock = threading.Lock()
        return True

    @hookimpl
    def network_sync(self, networks: Sequence[NetworkState]) -> bool:
        failures: list[Exception] = []
        with self._lock:
            self._networks = {state.network.id: settings(state.network) for state in networks}
            for state in networks:
                try:
                    self._restore(state)
                except (EngineError, OSError) as error:
                    failures.append(error)
            self._sweep()
            self._dhcp.sweep({endpoint.id for state in networks for endpoint, _ in state.endpoints})
        if failures:
            raise Several("some macvlan networks could not be restored", failures)
        return True

    def _restore(self, state: NetworkState) -> None:
        chosen = self._networks[state.network.id]
        parent = self._parent(chosen)
        if chosen.host_access:
            self._access.ensure(chosen, parent)
        for endpoint, _ in state.endpoints:
            if chosen.dhcp:
                self._dhcp.again(endpoint)
            if chosen.host_access:
                self._access.add(chosen, parent, self._addresses(chosen, endpoint))

    def _addresses(self, chosen: MacvlanSettings, endpoint: Endpoint) -> tuple[Interface, ...]:
        if chosen.dhcp:
            lease = self._dhcp.lease(endpoint)
            return (lease.address,) if lease is not None else ()
        return endpoint.addresses

    def _parent(self, chosen: MacvlanSettings) -> LinkInfo:
        return self._parents.get(chosen.parent, closed=chosen.closed)

    def _sweep(self) -> None:
        """Delete our links on the host that no network needs."""
        wanted = {chosen.parent for chosen in self._networks.values()}
        wanted |= {chosen.host_link for chosen in self._networks.values() if chosen.host_access}
        self._parents.sweep(wanted)

    @hookimpl
    def network_create(self, network: Network) -> bool:
        chosen = settings(network)
        with self._lock:
            self._check_parent(network, chosen)
            self._networks[network.id] = chosen
            try:
                parent = self._parent(chosen)
                stacking.check_mtu(network, parent)
                self._try(network, chosen, parent)
                if chosen.host_access:
                    self._access.ensure(chosen, parent)
            except BaseException:
                del self._networks[network.id]
                self._sweep()
                raise
        return True

    def _check_parent(self, network: Network, chosen: MacvlanSettings) -> None:
        for other_id, other in self._networks.items():
            if other.parent != chosen.parent or other_id == network.id:
                continue
            if "passthru" in (chosen.mode, other.mode):
                raise InUse(
                    f"network {network.name}: parent {chosen.parent} belongs to network "
                    f"{other_id[:12]}, and macvlan_mode=passthru shares it with nobody"
                )

    def _try(self, network: Network, chosen: MacvlanSettings, parent: LinkInfo) -> None:
        """Make a link on the parent and remove it: what else the parent carries shows now."""
        name = f"probe{secrets.token_hex(4)}"
        try:
            _stack(self._netlink, name, parent.index, chosen.mode)
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

        def make() -> None:
            _stack(
                self._netlink,
                endpoint.interface,
                parent.index,
                chosen.mode,
                namespace=sandbox.path,
                # One of its own for each endpoint, the same at every start: leases go by it.
                mac=endpoint.mac or _mac(endpoint),
                mtu=chosen.mtu,
            )

        try:
            # A link that is not reaped yet holds its MAC, or the whole parent for itself.
            alone = (errno.EINVAL, errno.EBUSY) if chosen.mode == "passthru" else ()
            stacking.when_reaped(make, {errno.EADDRINUSE, *alone})
        except OSError as error:
            raise _refused(network, chosen, error) from error
        with Netlink(sandbox.path) as inside:
            try:
                return self._joined(network, endpoint, sandbox, parent, inside)
            except BaseException:
                self._dhcp.end(endpoint)
                inside.delete_link(endpoint.interface)
                raise

    def _joined(
        self, network: Network, endpoint: Endpoint, sandbox: Sandbox, parent: LinkInfo,
        inside: Netlink,
    ) -> Link:  # fmt: skip
        chosen = settings(network)
        made = inside.link(endpoint.interface)
        mac = made.mac if made is not None else ""
        addresses, gateways = endpoint.addresses, network.gateways(endpoint)
        if chosen.dhcp:
            lease = self._dhcp.begin(endpoint, sandbox, parent.name, chosen.dhcp_timeout)
            addresses = (lease.address,)
            gateways = (lease.gateway,) if lease.gateway is not None else ()
        if chosen.closed:
            gateways = ()
        if chosen.host_access:
            self._access.add(chosen, parent, addresses)
        return Link(
            name=endpoint.interface,
            gateways=gateways,
            mtu=chosen.mtu,
            mac=mac,
            addresses=addresses if chosen.dhcp else (),
            sysctls=stacking.sysctls(),
        )

    @hookimpl
    def endpoint_leave(self, network: Network, endpoint: Endpoint) -> bool:
        chosen = settings(network)
        if chosen.host_access:
            self._access.remove(chosen, self._addresses(chosen, endpoint))
        self._dhcp.end(endpoint)
        return True

    @hookimpl
    def endpoint_delete(self, network: Network, endpoint: Endpoint) -> bool:
        self._dhcp.end(endpoint)
        return True

    @hookimpl
    def network_status(self) -> Sequence[tuple[str, str]]:
        parents = sorted({c.parent for c in self._networks.values() if not c.closed})
        return [("Parents", ", ".join(parents) or "none")]

    @hookimpl
    def network_close(self) -> bool:
        self._netlink.close()
        self._dhcp.close()
        return True


def _stack(
    netlink: Netlink, name: str, parent: int, mode: str, *, namespace: Path | None = None,
    mac: str = "", mtu: int = 0,
) -> None:  # fmt: skip
    data = {"IFLA_MACVLAN_MODE": mode}
    netlink.stack(name, "macvlan", parent, data=data, namespace=namespace, mac=mac, mtu=mtu)


def _mac(endpoint: Endpoint) -> str:
    return "02:42:" + ":".join(endpoint.id[i : i + 2] for i in range(0, 8, 2))


def _refused(network: Network, chosen: MacvlanSettings, error: OSError) -> EngineError:
    where = f"network {network.name}: parent {chosen.parent}"
    if error.errno == errno.EADDRINUSE:
        return InUse(f"{where} carries a link with this MAC address already: choose another one")
    if error.errno == errno.EBUSY:
        return InUse(
            f"{where} is in use: it is the port of a bridge or bond, or carries links of ipvlan "
            f"(see: ip -d link show {chosen.parent})"
        )
    if error.errno == errno.EINVAL:
        return InUse(
            f"{where} takes no link in macvlan_mode={chosen.mode}: in passthru mode it carries "
            "one link only, and this one takes none beside it"
        )
    return InvalidArgument(f"{where} takes no macvlan link: {error.strerror}")
