"""What the hosts of an overlay share, against a real etcd: networks, addresses, leases, changes."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from drivetrain.errors import (
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    InUse,
    Unauthenticated,
    Unavailable,
)
from drivetrain.testing.etcd import EtcdServer
from drivetrain.testing.hosts import eventually
from drivetrain_network_overlay import kv
from drivetrain_network_overlay.documents import (
    Claim,
    EndpointDocument,
    HostDocument,
    NetworkDocument,
    last_part,
)
from drivetrain_network_overlay.etcd import Access, Etcd
from drivetrain_network_overlay.following import Follower
from drivetrain_network_overlay.kv import Item
from drivetrain_network_overlay.membership import Membership, Terms
from drivetrain_network_overlay.store import Allocator, Store, bounds


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


@pytest.fixture
def store(server: EtcdServer, request: pytest.FixtureRequest) -> Store:
    return Store(Etcd(Access((server.url,))), f"/{request.node.name}")


def network(name: str, subnet: str = "10.1.0.0/24") -> NetworkDocument:
    return NetworkDocument(id=f"{name:0<64}", name=name, subnets=[{"prefix": subnet}])


def at_once(*works: Callable[[], object]) -> list[object]:
    """Run all at the same time and return what each returned or raised."""
    found: list[object] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(number: int) -> None:
        barrier.wait()
        try:
            found[number] = works[number]()
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


# Networks


def test_a_network_is_known_with_a_number_of_its_own(store: Store) -> None:
    one = store.create_network(network("one"))
    two = store.create_network(network("two", "10.2.0.0/24"))
    assert {one.number, two.number} == {4096, 4097}
    assert {each.name: each for each in store.networks()} == {"one": one, "two": two}
    assert store.create_network(network("one")) == one


def test_names_and_subnets_are_unique_in_the_cluster(store: Store) -> None:
    store.create_network(network("one"))
    with pytest.raises(AlreadyExists, match="one"):
        store.create_network(NetworkDocument(id="f" * 64, name="one"))
    with pytest.raises(FailedPrecondition, match=r"overlaps.*network one"):
        store.create_network(network("two", "10.1.0.128/25"))


def test_hosts_that_make_the_same_at_once_get_one_network(store: Store) -> None:
    works = [
        lambda number=number: store.create_network(network(f"n{number}", "10.9.0.0/16"))
        for number in range(6)
    ]
    found = at_once(*works)
    assert sum(isinstance(each, NetworkDocument) for each in found) == 1
    assert sum(isinstance(each, FailedPrecondition) for each in found) == 5
    assert len(store.networks()) == 1


def test_networks_that_are_made_at_once_get_different_numbers(store: Store) -> None:
    works = [
        lambda number=number: store.create_network(network(f"n{number}", f"10.{number}.0.0/16"))
        for number in range(6)
    ]
    found = at_once(*works)
    assert len({each.number for each in found if isinstance(each, NetworkDocument)}) == 6


def test_numbers_of_a_list_are_used_up(store: Store) -> None:
    assert store.create_network(network("one"), [300, 301]).number == 300
    assert store.create_network(network("two", "10.2.0.0/24"), [300, 301]).number == 301
    with pytest.raises(Exhausted, match="300, 301"):
        store.create_network(network("three", "10.3.0.0/24"), [300, 301])


def test_a_network_stays_while_a_host_that_is_there_has_an_endpoint_on_it(
    store: Store, tmp_path: Path
) -> None:
    made = store.create_network(network("one"))
    member = joined(store, tmp_path, "a")
    address = allocator(store, made.id, "a").take("endpoint", member.lease())
    with pytest.raises(FailedPrecondition, match="host-a"):
        store.delete_network(made.id)
    store.release(made.id, address, Claim("a", "endpoint"))
    store.delete_network(made.id)
    store.delete_network(made.id)
    assert store.networks() == []
    assert store.create_network(network("one")).number == made.number
    member.close()


# Addresses


def allocator(store: Store, home: str, host: str, subnet: str = "10.1.0.0/24") -> Allocator:
    first, last = bounds(ip_network(subnet))
    return Allocator(store, home, host, first, last, [ip_address("10.1.0.1")])


def test_hosts_that_allocate_at_once_never_get_the_same_address(store: Store) -> None:
    made = store.create_network(network("one", "10.1.0.0/25"))
    lease = store.etcd.grant(60)
    given: dict[str, list[object]] = {host: [] for host in "abc"}

    def work(host: str) -> None:
        mine = allocator(store, made.id, host, "10.1.0.0/25")
        for number in range(41):
            given[host].append(mine.take(f"{host}{number}", lease))

    assert at_once(*(lambda host=host: work(host) for host in given)) == [None] * 3
    everything = [address for addresses in given.values() for address in addresses]
    assert len(everything) == len(set(everything)) == 123
    assert ip_address("10.1.0.1") not in everything


def test_the_last_address_is_found_and_then_none(store: Store) -> None:
    made = store.create_network(network("one", "10.1.0.0/29"))
    lease = store.etcd.grant(60)
    one, two = (allocator(store, made.id, host, "10.1.0.0/29") for host in "ab")
    taken = [one.take(f"e{number}", lease) for number in range(3)]
    taken += [two.take(f"f{number}", lease) for number in range(2)]
    assert one.take("e0", lease) == taken[0]
    assert len(set(taken)) == 5
    for each in (one, two):
        with pytest.raises(Exhausted, match=r"10\.1\.0\.1 to 10\.1\.0\.6"):
            each.take("g", lease)
    two.give_back(taken[4], "f1")
    assert one.take("g", lease) == taken[4]


def test_a_wanted_address_is_given_once_and_says_to_whom(store: Store) -> None:
    made = store.create_network(network("one"))
    lease = store.etcd.grant(60)
    wanted = ip_address("10.1.0.77")
    one, two = allocator(store, made.id, "a"), allocator(store, made.id, "b")
    assert one.take_wanted(wanted, "mine", lease) == wanted
    assert one.take_wanted(wanted, "mine", lease) == wanted
    with pytest.raises(InUse, match=r"10\.1\.0\.77 belongs to endpoint mine of host a"):
        two.take_wanted(wanted, "other", lease)
    two.give_back(wanted, "other")
    with pytest.raises(InUse):
        two.take_wanted(wanted, "other", lease)


# Leases


def joined(
    store: Store, folder: Path, name: str, terms: Terms | None = None,
    fenced: Callable[[str | None], None] = lambda _: None,
) -> Membership:  # fmt: skip
    host = HostDocument(id=name, name=f"host-{name}", address=f"192.0.2.{ord(name)}")
    member = Membership(
        store, host, terms or Terms(presence=2, addresses=60), folder / name, fenced, lambda: None
    )
    member.start()
    return member


def endpoint(store: Store, member: Membership, home: str, name: str) -> EndpointDocument:
    host = member.host
    address = allocator(store, home, host.id).take(name, member.lease())
    made = EndpointDocument(
        name, home, name, [f"{address}/24"], "02:42:00:00:00:01", host.id, host.address
    )
    member.register(made)
    return made


def names_on(store: Store, home: str) -> set[str]:
    return {last_part(item.key) for item in store.etcd.range(store.keys.endpoints(home))[0]}


def test_the_endpoints_of_a_dead_host_vanish_and_its_addresses_stay_taken(
    store: Store, tmp_path: Path
) -> None:
    made = store.create_network(network("one"))
    one, two = joined(store, tmp_path, "a"), joined(store, tmp_path, "b")
    dead = endpoint(store, one, made.id, "x")
    endpoint(store, two, made.id, "y")
    one.close()
    eventually(lambda: names_on(store, made.id) == {"y"}, "the endpoint of the dead host is gone")
    eventually(lambda: [h.id for h in store.hosts()] == ["b"], "the dead host is gone")
    assert set(dead.plain_addresses()) <= set(store.claims(made.id))
    two.close()


def test_a_host_whose_lease_ended_registers_its_endpoints_again(
    store: Store, tmp_path: Path
) -> None:
    made = store.create_network(network("one"))
    member = joined(store, tmp_path, "a")
    endpoint(store, member, made.id, "x")
    store.etcd.revoke(member._presence)
    assert names_on(store, made.id) == set()
    eventually(lambda: names_on(store, made.id) == {"x"}, "the endpoint is back")
    store.etcd.revoke(member.lease())
    assert store.claims(made.id) == {}
    eventually(lambda: len(store.claims(made.id)) == 1, "the claim is back")
    member.close()


def test_a_restarted_host_keeps_its_address_lease(store: Store, tmp_path: Path) -> None:
    first = joined(store, tmp_path, "a")
    lease = first.lease()
    first.close()
    second = joined(store, tmp_path, "a")
    assert second.lease() == lease
    second.close()


def test_an_endpoint_that_lost_its_address_is_fenced(store: Store, tmp_path: Path) -> None:
    made = store.create_network(network("one"))
    told: list[str | None] = []
    member = joined(store, tmp_path, "a", fenced=told.append)
    mine = endpoint(store, member, made.id, "x")
    (address,) = mine.plain_addresses()
    store.release(made.id, address, Claim("a", "x"))
    assert store.claim(made.id, address, Claim("b", "other"), store.etcd.grant(60)) is None
    member.refresh()
    assert told == ["x"]
    assert names_on(store, made.id) == set()
    assert store.claims(made.id) == {address: Claim("b", "other")}
    member.close()


def test_a_host_that_is_cut_off_stops_before_its_addresses_are_given_to_others(
    tmp_path: Path,
) -> None:
    with EtcdServer() as server:
        store = Store(Etcd(Access((server.url,), timeout=1)), "/fence")
        made = store.create_network(network("one"))
        told: list[str | None] = []
        member = joined(store, tmp_path, "a", Terms(1, 4), told.append)
        mine = endpoint(store, member, made.id, "x")
        server.stop()
        with pytest.raises(Unavailable):
            eventually(lambda: told, "the host is fenced", 30)
            member.lease()
        assert told == [None]
        server.start()
        eventually(lambda: member.connected, "the host is back")
        assert set(store.claims(made.id)) == set(mine.plain_addresses())
        assert names_on(store, made.id) == {"x"}
        member.close()


# Following


class Copy:
    """What a follower told."""

    def __init__(self, client: Etcd, prefix: bytes) -> None:
        self.values: dict[bytes, bytes] = {}
        self.follower = Follower(client, prefix, self.told, "copy").start()
        assert self.follower.wait(10)

    def told(self, changed: list[Item], gone: list[Item]) -> None:
        for item in gone:
            del self.values[item.key]
        self.values.update({item.key: item.value for item in changed})


def test_a_follower_sees_every_change_over_restarts_and_compaction() -> None:
    with EtcdServer() as server:
        client = Etcd(Access((server.url,), timeout=1))
        client.put(b"/f/1", b"a")
        copy = Copy(client, b"/f/")
        assert copy.values == {b"/f/1": b"a"}
        client.put(b"/f/2", b"b")
        client.put(b"/g/1", b"elsewhere")
        client.delete(b"/f/1")
        eventually(lambda: copy.values == {b"/f/2": b"b"}, "changes are seen")
        server.stop()
        server.start()
        client.put(b"/f/3", b"c")
        eventually(lambda: len(copy.values) == 2, "changes after a restart are seen")
        server.stop()
        # While the follower tries again: more changes, and their history is forgotten.
        server.start()
        copy.follower.disturb()
        client.delete(b"/f/2")
        client.put(b"/f/3", b"d")
        subprocess.run(
            ["etcdctl", "--endpoints", server.url, "compaction", str(revision(client))],
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}, check=True, capture_output=True,
        )  # fmt: skip
        eventually(lambda: copy.values == {b"/f/3": b"d"}, "the list is taken anew")
        copy.follower.close()


def revision(client: Etcd) -> int:
    return client.range(b"/f/")[1]


# Ways to etcd


def test_another_endpoint_is_asked_when_one_is_dead(server: EtcdServer) -> None:
    client = Etcd(Access(("http://127.0.0.1:1", server.url)))
    client.put(b"/two", b"x")
    found = client.get(b"/two")
    assert found is not None
    assert found.value == b"x"
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        Etcd(Access(("http://127.0.0.1:1",))).get(b"/two")


def test_user_and_password_are_needed_and_a_token_that_ended_is_renewed() -> None:
    with EtcdServer(arguments=["--auth-token-ttl", "2"]) as server:
        for command in ("user add root:secret", "user grant-role root root", "auth enable"):
            subprocess.run(
                ["etcdctl", "--endpoints", server.url, *command.split()],
                env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}, check=True, capture_output=True,
            )  # fmt: skip
        for user, password in (("", ""), ("root", "wrong")):
            with pytest.raises(Unauthenticated):
                Etcd(Access((server.url,), user=user, password=password)).get(b"/x")
        client = Etcd(Access((server.url,), user="root", password="secret"))
        client.put(b"/x", b"1")
        client._token = "ended.1"
        found = client.get(b"/x")
        assert found is not None and found.value == b"1"
        assert client.keep_alive(client.grant(10)) == 10


def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    run = lambda *words: subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)  # noqa: E731
    new = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
    run("openssl", "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    for name in ("server", "client"):
        run("openssl", "req", *new, "-keyout", f"{name}.key", "-out", "csr", "-subj", f"/CN={name}")
        (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
        run(
            "openssl", "x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-out", f"{name}.pem", "-extfile", "ext",
        )  # fmt: skip
    place = {name: str(tmp_path / name) for name in ("ca.pem", "client.pem", "client.key")}
    arguments = [
        "--cert-file", str(tmp_path / "server.pem"), "--key-file", str(tmp_path / "server.key"),
        "--trusted-ca-file", place["ca.pem"], "--client-cert-auth",
    ]  # fmt: skip
    with EtcdServer(arguments=arguments, scheme="https") as server:
        client = Etcd(
            Access((server.url,), place["ca.pem"], place["client.pem"], place["client.key"])
        )
        client.put(b"/x", b"1")
        copy = Copy(client, b"/x")
        assert copy.values == {b"/x": b"1"}
        copy.follower.close()
        with pytest.raises(Unavailable):  # how it refuses depends on the version of TLS
            Etcd(Access((server.url,), place["ca.pem"])).get(b"/x")
        with pytest.raises(Unavailable, match="certificate"):
            Etcd(Access((server.url,))).get(b"/x")


def test_a_lost_answer_of_a_claim_does_no_harm(store: Store) -> None:
    made = store.create_network(network("one"))
    lease = store.etcd.grant(60)
    address, mine = ip_address("10.1.0.9"), Claim("a", "x")
    key = store.keys.address(made.id, address)
    store.etcd.transact([kv.absent(key)], [kv.put(key, mine.encode(), lease)])
    assert store.claim(made.id, address, mine, lease) is None
