"""A network driver with every hook: a veth pair for each container, routed and without a bridge."""

from ipaddress import ip_address

from drivetrain import hookimpl
from drivetrain.errors import NotSupported
from drivetrain.host.netlink import Netlink
from drivetrain.network import Link, NetworkTraits, PortPolicy
from drivetrain.options import Option


class Example:
    @hookimpl
    def network_probe(self):
        try:
            Netlink().close()
        except OSError as error:
            raise NotSupported(f"no netlink sockets here: {error}") from error

    @hookimpl
    def network_traits(self):
        return NetworkTraits(ports=False)

    @hookimpl
    def network_driver_options(self):
        return ()

    @hookimpl
    def network_options(self):
        return (Option("mtu", "integer", default=1500, help="of the links, in bytes"),)

    @hookimpl
    def endpoint_options(self):
        return ()

    @hookimpl
    def network_open(self, root, options):
        self.netlink = Netlink()
        return True

    @hookimpl
    def network_sync(self, networks):
        for state in networks:
            self.network_create(state.network)
        return True

    @hookimpl
    def network_create(self, network):
        return True  # nothing is shared; a bridge would be made here

    @hookimpl
    def network_delete(self, network):
        return True

    @hookimpl
    def endpoint_create(self, network, endpoint):
        return True

    @hookimpl
    def endpoint_join(self, network, endpoint, sandbox):
        mtu = network.options.integer("mtu")
        self.netlink.veth(
            f"ex{endpoint.id[:10]}",
            endpoint.interface,
            namespace=sandbox.path,
            mac=endpoint.mac,
            mtu=mtu,
        )
        return Link(name=endpoint.interface, mtu=mtu, default_route_on_link=True)

    @hookimpl
    def endpoint_leave(self, network, endpoint):
        self.netlink.delete_link(f"ex{endpoint.id[:10]}")
        return True

    @hookimpl
    def endpoint_rename(self, network, endpoint):
        return True  # a driver over several hosts tells endpoint.names to the others

    @hookimpl
    def endpoint_delete(self, network, endpoint):
        return True

    @hookimpl
    def port_publish(self, network, endpoint, port):
        raise NotSupported("this network publishes no ports: use a bridge")

    @hookimpl
    def port_unpublish(self, network, endpoint, port):
        return True

    @hookimpl
    def port_policy(self, network):
        return PortPolicy(host_address=ip_address("127.0.0.1"))

    @hookimpl
    def subnets_choose(self, request):
        return None  # the engine's own address management serves

    @hookimpl
    def subnets_release(self, network):
        return True

    @hookimpl
    def address_take(self, network, endpoint, subnet, wanted):
        return wanted or subnet.prefix[2]  # a real one remembers what it gave

    @hookimpl
    def address_release(self, network, endpoint, address):
        return True

    @hookimpl
    def network_list(self):
        return None  # a driver over several hosts knows the networks of all

    @hookimpl
    def peer_list(self, network):
        return ()

    @hookimpl
    def peer_find(self, network, name):
        return [peer for peer in self.peer_list(network) if name in peer.names]

    @hookimpl
    def network_status(self):
        return (("Links", "veth"),)

    @hookimpl
    def network_close(self):
        self.netlink.close()
        return True
