"""Address pools: each address once, given back ones last, whatever the size."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from drivetrain.errors import Exhausted, InUse, InvalidArgument
from drivetrain_engine.networks.ipam import DEFAULT_POOLS, Pool, free_subnet
from drivetrain_engine.networks.records import SubnetRecord


def test_all_addresses_of_a_large_subnet_are_given_once() -> None:
    pool = Pool(SubnetRecord("10.0.0.0/16", gateway="10.0.0.1", auxiliary={"a": "10.0.0.9"}))
    given = {pool.take() for _ in range(65532)}
    assert len(given) == 65532
    assert not {ip_address(f"10.0.0.{n}") for n in (0, 1, 9)} & given
    assert ip_address("10.0.255.255") not in given
    with pytest.raises(Exhausted, match=r"10\.0\.0\.0/16"):
        pool.take()


def test_a_choice_looks_at_no_address_twice() -> None:
    looked: list[int] = []

    class Counting(set[int]):
        def __contains__(self, number: object) -> bool:
            looked.append(number)  # type: ignore[arg-type]
            return super().__contains__(number)

    pool = Pool(SubnetRecord("10.0.0.0/16", gateway="10.0.0.1"))
    pool._taken = Counting(pool._taken)
    given = [pool.take() for _ in range(60_000)]
    assert len(looked) <= 60_001
    looked.clear()
    for address in given[:1000]:
        pool.give_back(address)
    for _ in range(6_000):
        pool.take()
    assert len(looked) <= 1000 + 6_000


def test_an_address_given_back_is_given_again_last_and_the_longest_free_first() -> None:
    pool = Pool(SubnetRecord("10.0.0.0/29", gateway="10.0.0.1"))
    first, second, *_ = (pool.take() for _ in range(3))
    pool.give_back(second)
    pool.give_back(first)
    assert [str(pool.take()) for _ in range(4)] == ["10.0.0.5", "10.0.0.6", "10.0.0.3", "10.0.0.2"]


def test_an_address_that_is_wanted_is_given_unless_it_is_taken() -> None:
    pool = Pool(SubnetRecord("10.0.0.0/29", gateway="10.0.0.1", ip_range="10.0.0.4/31"))
    assert str(pool.take("10.0.0.2")) == "10.0.0.2", "outside of the range is fine"
    for wanted in ("10.0.0.1", "10.0.0.2"):
        with pytest.raises(InUse, match=wanted):
            pool.take(wanted)
    with pytest.raises(InvalidArgument, match="not in the subnet"):
        pool.take("10.9.0.2")
    assert [str(pool.take()) for _ in range(2)] == ["10.0.0.4", "10.0.0.5"]
    pool.give_back(ip_address("10.0.0.2"))
    with pytest.raises(Exhausted):
        pool.take()
    pool.give_back(ip_address("10.0.0.5"))
    pool.give_back(ip_address("10.0.0.5"))
    assert str(pool.take("10.0.0.5")) == "10.0.0.5"
    with pytest.raises(Exhausted):
        pool.take()


def test_addresses_of_before_a_restart_are_not_given_again() -> None:
    pool = Pool(SubnetRecord("fd00::/64", gateway="fd00::1"))
    for text in ("fd00::2", "fd00::4"):
        pool.claim(ip_address(text))
    assert [str(pool.take()) for _ in range(2)] == ["fd00::3", "fd00::5"]


def test_subnets_come_from_the_pools_past_what_is_taken() -> None:
    taken = [ip_network("172.17.0.0/16"), ip_network("172.18.5.0/24"), ip_network("fd00::/8")]
    assert free_subnet(DEFAULT_POOLS, taken, 4, "0" * 64) == ip_network("172.19.0.0/16")
    pools = [("10.1.0.0/30", 31)]
    blocked = [ip_network("10.1.0.0/31"), ip_network("10.1.0.2/31")]
    with pytest.raises(Exhausted, match="--subnet"):
        free_subnet(pools, blocked, 4, "0" * 64)
