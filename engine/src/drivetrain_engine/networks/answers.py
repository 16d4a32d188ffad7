"""Answers about containers, in DNS's own format."""

from __future__ import annotations

import contextlib
import random
from ipaddress import ip_address

import dnslib

from drivetrain_engine.networks.lookup import Names

#: Seconds that an answer may be remembered; as docker's.
TTL = 600


def answer(question: dnslib.DNSRecord, names: Names, *, stream: bool) -> bytes | None:
    """Answer what is about containers; ``None``: it is not."""
    name = str(question.q.qname).rstrip(".").lower()
    reply = question.reply(aa=0, ra=1)
    kind = question.q.qtype
    if kind == dnslib.QTYPE.PTR:
        address = _reversed_address(name)
        found = names.reverse(address) if address else None
        if found is None:
            return None
        rdata = dnslib.PTR(f"{found}.")
        reply.add_answer(dnslib.RR(question.q.qname, dnslib.QTYPE.PTR, rdata=rdata, ttl=TTL))
        return bytes(reply.pack())
    addresses = names.find(name)
    if addresses is None:
        return None
    version = {dnslib.QTYPE.A: 4, dnslib.QTYPE.AAAA: 6}.get(kind, 0)
    chosen = [text for text in addresses if ip_address(text).version == version]
    random.shuffle(chosen)
    for text in chosen:
        rdata = dnslib.A(text) if version == 4 else dnslib.AAAA(text)
        reply.add_answer(dnslib.RR(question.q.qname, kind, rdata=rdata, ttl=TTL))
    packed = bytes(reply.pack())
    if not stream and len(packed) > _room(question):
        return bytes(reply.truncate().pack())
    return packed


def _room(question: dnslib.DNSRecord) -> int:
    """Return how many bytes the client takes in a datagram (RFC 6891)."""
    sizes = [int(record.rclass) for record in question.ar if record.rtype == dnslib.QTYPE.OPT]
    return max(512, *sizes) if sizes else 512


def _reversed_address(name: str) -> str:
    if name.endswith(".in-addr.arpa"):
        return ".".join(reversed(name.removesuffix(".in-addr.arpa").split(".")))
    if name.endswith(".ip6.arpa"):
        digits = "".join(reversed(name.removesuffix(".ip6.arpa").split(".")))
        groups = [digits[i : i + 4] for i in range(0, len(digits), 4)]
        with contextlib.suppress(ValueError):
            return str(ip_address(":".join(groups)))
    return ""
