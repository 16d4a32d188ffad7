"""A driver package that brings its own address management."""

from __future__ import annotations

from pathlib import Path

from drivetrain.testing.distributions import Distributions
from drivetrain.testing.hosts import Host

DRIVER = """
    from ipaddress import ip_network
    from pathlib import Path
    from drivetrain import hookimpl
    from drivetrain.errors import NotSupported
    from drivetrain.network import Subnet

    class Odd:
        \"\"\"Gives odd addresses of 10.77.0.0/24, and keeps them in files.\"\"\"

        @hookimpl
        def network_open(self, root):
            self.root = root
            return True

        @hookimpl
        def network_create(self, network):
            raise NotSupported("addresses only")

        @hookimpl
        def network_delete(self, network):
            return True

        @hookimpl
        def endpoint_join(self, network, endpoint, sandbox):
            raise NotSupported("addresses only")

        @hookimpl
        def subnets_choose(self, request):
            (self.root / "subnet").write_text(request.options.get("reason", ""))
            prefix = ip_network("10.77.0.0/24")
            return (Subnet(prefix, prefix[1]),)

        @hookimpl
        def subnets_release(self, network):
            (self.root / "subnet").unlink()
            return True

        @hookimpl
        def address_take(self, network, endpoint, subnet, wanted):
            for number in range(3, 255, 2):
                file = self.root / str(subnet.prefix[number])
                if not file.exists() or file.read_text() == endpoint:
                    file.write_text(endpoint)
                    return subnet.prefix[number]

        @hookimpl
        def address_release(self, network, endpoint, address):
            (self.root / str(address)).unlink(missing_ok=True)
            return True
"""


def test_a_package_chooses_subnets_and_addresses_for_bridges(tmp_path: Path) -> None:
    Distributions(tmp_path).install(
        "odd-addresses", drivers={"network/odd": "odd_addresses:Odd"},
        modules={"odd_addresses": DRIVER},
    )  # fmt: skip
    with Host() as host:
        host.start(environment={"PYTHONPATH": str(tmp_path)})
        host.load_busybox()
        create = ("network", "create", "--ipam-driver")
        host.docker(*create, "odd", "--ipam-opt", "reason=odd", "n1")
        kept = next(path.parent for path in host.data_root.rglob("subnet"))
        assert (kept / "subnet").read_text() == "odd"
        for name in ("one", "two"):
            host.docker("run", "-d", "--name", name, "--network", "n1", "busybox", "sleep", "100")
        form = "{{.NetworkSettings.Networks.n1.IPAddress}}"
        assert host.docker("inspect", "-f", form, "one", "two").stdout.split() == [
            "10.77.0.3", "10.77.0.5",
        ]  # fmt: skip
        host.docker("exec", "one", "ping", "-c", "1", "-W", "20", "two")
        assert host.docker("network", "inspect", "-f", "{{.IPAM.Driver}}", "n1").stdout == "odd\n"
        host.docker("rm", "-f", "one", "two")
        host.docker("network", "rm", "n1")
        assert list(kept.iterdir()) == []
        none = host.docker(*create, "bridge", "n2", check=False)
        assert "bridge manages no addresses" in none.stderr
        unknown = host.docker(*create, "nobody", "n2", check=False)
        assert "No such network driver: nobody" in unknown.stderr
