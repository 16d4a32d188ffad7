"""The bridge driver on a kernel with SCTP, and without br_netfilter."""

from __future__ import annotations

import subprocess
from pathlib import Path

from drivetrain.testing.netlab import HOST4, HOST6, SILENCE, WORLD4, WORLD6
from drivetrain.testing.network import NetworkScene


class TestBridge(NetworkScene):
    driver = "bridge"

    def test_sctp_is_published(self) -> None:
        subprocess.run(["modprobe", "sctp"], check=True)
        container = self.container(self.network())
        container.place.serve(kind="sctp")
        for version in (4, 6):
            container.publish(8080, address="::" if version == 6 else "0.0.0.0", protocol="sctp")
            host, world = (HOST6, WORLD6) if version == 6 else (HOST4, WORLD4)
            assert self.lab.world.reaches(host, 8080, kind="sctp") == world
            assert self.lab.world.misses(host, 80, kind="sctp")

    def test_containers_kept_apart_meet_at_published_ports_without_br_netfilter(self) -> None:
        assert not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
        network = self.network(options={"com.docker.network.bridge.enable_icc": "false"})
        one, two = self.container(network, 10), self.container(network, 11)
        for port in (80, 81):
            two.place.serve(port)
        for version in (4, 6):
            two.publish(8080, address="::" if version == 6 else "0.0.0.0")
            host = HOST6 if version == 6 else HOST4
            assert one.place.misses(two.address(version), 81)
            assert not one.place.pings(two.address(version), SILENCE)
            for place in (one.place, two.place, self.lab.world):
                place.reaches(host, 8080)
