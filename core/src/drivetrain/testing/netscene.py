"""The scene of checks of network drivers: a driver at work on a host with a world around it."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import ClassVar

import pytest

from drivetrain.calling import Driver
from drivetrain.network import (
    Endpoint,
    Network,
    NetworkHooks,
    NetworkState,
    PublishedPort,
    Subnet,
)
from drivetrain.testing.base import Conformance
from drivetrain.testing.netlab import WORLD4, WORLD6, Lab, Place, configure


class Container:
    """A sandbox with an endpoint on one network."""

    def __init__(
        self, driver: Driver[NetworkHooks], network: Network, endpoint: Endpoint, place: Place
    ) -> None:
        self.driver = driver
        self.network = network
        self.endpoint = endpoint
        self.place = place
        self.ports: list[PublishedPort] = []

    def join(self) -> None:
        """Join the network, as the engine does."""
        self.driver.call.endpoint_create(self.network, self.endpoint)
        self.link = self.driver.call.endpoint_join(self.network, self.endpoint, self.place.sandbox)
        configure(self.place, self.endpoint, self.link)

    def leave(self) -> None:
        """Leave it."""
        self.driver.call.endpoint_leave(self.network, self.endpoint)

    def remove(self) -> None:
        """Leave and forget the endpoint, with the sandbox gone first, as when a container ends."""
        self.place.close()
        self.leave()
        self.driver.call.endpoint_delete(self.network, self.endpoint)

    def publish(
        self, host_port: int, port: int = 80, address: str = "0.0.0.0", protocol: str = "tcp"
    ) -> PublishedPort:
        """Publish a port."""
        made = PublishedPort(protocol, port, ip_address(address), host_port)  # type: ignore[arg-type]
        self.driver.call.port_publish(self.network, self.endpoint, made)
        self.ports.append(made)
        return made

    def address(self, version: int = 4) -> str:
        """Return the address of an IP version."""
        return str(next(a.ip for a in self.endpoint.addresses if a.version == version))


class NetworkScene(Conformance):
    """A driver opened on a lab, without a check; for checks of one's own.

    Attributes:
        options: of the networks that the checks make.
        driver_options: of the driver.
        on_parent: containers are on the segment of the uplink, and have addresses of it.
        outside: containers reach the world.
        versions: IP versions that the driver does.
    """

    family = "network"
    driver_options: ClassVar[Mapping[str, str]] = {}
    on_parent: ClassVar[bool] = False
    outside: ClassVar[bool] = True
    versions: ClassVar[tuple[int, ...]] = (4, 6)

    # for authors to override

    def subnets(self, number: int, versions: Sequence[int]) -> tuple[Subnet, ...]:
        """Return the subnets of the network ``number``."""
        texts = {4: (f"10.{100 + number}.0.0/24", f"10.{100 + number}.0.1"),
                 6: (f"fd00:{100 + number}::/64", f"fd00:{100 + number}::1")}  # fmt: skip
        if self.on_parent and number == 0:
            texts = {4: ("192.0.2.0/24", WORLD4), 6: ("2001:db8::/64", WORLD6)}
        return tuple(
            Subnet(ip_network(texts[version][0]), ip_address(texts[version][1]))
            for version in versions
        )

    def prepare(self) -> None:
        """Prepare the lab before the driver is opened; ``self.lab`` is there."""

    # the scene

    @pytest.fixture(autouse=True)
    def _opened(self) -> Iterator[None]:
        self.root = Path(tempfile.mkdtemp(prefix="net-", dir="/tmp"))
        (self.root / "driver").mkdir()
        self.lab = Lab(self.root)
        self.containers: list[Container] = []
        self.made: list[Network] = []
        try:
            with self.lab.entered():
                self.prepare()
                self.instance = self.open()
                self.synchronize()
                yield
                for container in self.containers:
                    container.remove()
                for network in self.made:
                    self.instance.call.network_delete(network)
                self.instance.call.network_close()
        finally:
            self.lab.close()
            shutil.rmtree(self.root)

    def open(self) -> Driver[NetworkHooks]:
        """Return a new instance at work in the same root, as after a start of the engine."""
        driver = self.new_driver()
        driver.call.network_probe()
        chosen = self.parsed(driver, "network_driver_options", self.driver_options)
        driver.call.network_open(self.root / "driver", chosen)
        return driver

    def restarted(self) -> None:
        """Replace the instance by a new one that is told what should exist."""
        self.instance.call.network_close()
        self.instance = self.open()
        for container in self.containers:
            container.driver = self.instance
        self.synchronize()

    def synchronize(self) -> None:
        """Tell the driver what should exist."""
        self.instance.call.network_sync(
            [
                NetworkState(
                    network,
                    tuple(
                        (container.endpoint, tuple(container.ports))
                        for container in self.containers
                        if container.network is network
                    ),
                )
                for network in self.made
            ]
        )

    def plan(
        self, number: int = 0, *, versions: Sequence[int] | None = None, internal: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> Network:  # fmt: skip
        """Return a network that is not made yet."""
        chosen = self.versions if versions is None else versions
        given = {**self.options, **(options or {})}
        return Network(
            id=secrets.token_hex(32),
            name=f"net{number}",
            subnets=self.subnets(number, chosen)
            if self.instance.call.network_traits().addresses
            else (),
            options=self.parsed(self.instance, "network_options", given),
            internal=internal,
        )

    def network(
        self, number: int = 0, *, versions: Sequence[int] | None = None, internal: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> Network:  # fmt: skip
        """Return a network that was made; it goes with the check."""
        network = self.plan(number, versions=versions, internal=internal, options=options)
        self.instance.call.network_create(network)
        self.made.append(network)
        return network

    def container(
        self, network: Network, number: int = 10, *, interface: str = "eth0", mac: str = "",
        join: bool = True,
    ) -> Container:  # fmt: skip
        """Return a container on a network, with the address ``number`` of each subnet."""
        addresses = tuple(
            ip_interface(f"{subnet.prefix[number]}/{subnet.prefix.prefixlen}")
            for subnet in network.subnets
        )
        octets = addresses[0].ip.packed[-4:] if addresses else b"\0\0\0\1"
        endpoint = Endpoint(
            id=secrets.token_hex(32),
            container=secrets.token_hex(32),
            addresses=addresses,
            mac=mac or "02:42:" + ":".join(f"{byte:02x}" for byte in octets),
            interface=interface,
            options=self.parsed(self.instance, "endpoint_options", {}),
            names=(f"c{number}",),
        )
        place = self.lab.place(f"{network.name}-{number}")
        container = Container(self.instance, network, endpoint, place)
        self.containers.append(container)
        if join:
            container.join()
        return container
