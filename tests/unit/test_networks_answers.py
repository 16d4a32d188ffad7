"""The answers about names that are made by hand are those that dnslib makes."""

from __future__ import annotations

import os
import random

import dnslib
import pytest

from drivetrain_engine.networks import answers
from drivetrain_engine.networks.lookup import Names

KNOWN = {
    "web": ["10.0.0.2", "fd00::2"],
    "web.net": ["10.0.0.2"],
    "six": ["fd00::6"],
    "many": [f"10.0.1.{number}" for number in range(60)],
}
NAMES = Names(KNOWN.get, lambda _: None, ())


def question(name: str, kind: str, size: int = 0) -> bytes:
    made = dnslib.DNSRecord.question(name, kind)
    if size:
        made.add_ar(dnslib.EDNS0(udp_len=size))
    return bytes(made.pack())


def shape(data: bytes) -> tuple[object, ...]:
    """Return what a message says, whatever the order of its answers."""
    found = dnslib.DNSRecord.parse(data)
    head = found.header
    told = sorted((str(r.rname), r.rtype, r.rclass, r.ttl, str(r.rdata)) for r in found.rr)
    # A truncated one of dnslib's has no question.
    asked = None if head.tc else (str(found.q.qname), found.q.qtype)
    return head.id, head.bitmap, asked, told, len(found.ar)


@pytest.mark.parametrize("size", [0, 1232, 4096])
@pytest.mark.parametrize("kind", ["A", "AAAA"])
@pytest.mark.parametrize("name", ["web", "WEB", "Web.Net", "six", "many"])
def test_a_quick_answer_is_the_same_as_a_thorough_one(name: str, kind: str, size: int) -> None:
    asked = question(name, kind, size)
    quick = answers.quick(asked, NAMES)
    thorough = answers.answer(dnslib.DNSRecord.parse(asked), NAMES, stream=False)
    assert quick is not None
    assert thorough is not None
    assert shape(quick) == shape(thorough)


@pytest.mark.parametrize(
    "asked",
    [
        question("elsewhere.example", "A"),
        question("web", "MX"),
        question("2.0.0.10.in-addr.arpa", "PTR"),
        question("web", "A")[:-1],
        b"",
        bytes(12),
        question("web", "A").replace(b"\0\0\1\0\1", b"\0\0\1\0\3"),
        # A name that goes on elsewhere, and two questions.
        b"\0\1\1\0\0\1\0\0\0\0\0\0\3web\xc0\x0c\0\1\0\1",
        b"\0\1\1\0\0\2\0\0\0\0\0\0\3web\0\0\1\0\1\3web\0\0\1\0\1",
    ],
)
def test_what_is_not_an_address_of_a_container_is_left_to_others(asked: bytes) -> None:
    assert answers.quick(asked, NAMES) is None


def test_no_datagram_is_too_odd() -> None:
    chance = random.Random(7)
    plain = question("web", "A", 1232)
    for _ in range(3000):
        data = bytearray(plain[: chance.randrange(len(plain) + 1)])
        for _ in range(chance.randrange(4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        answers.quick(bytes(data) + os.urandom(chance.randrange(8)), NAMES)
