"""Answers about containers, in DNS's own format."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from ipaddress import ip_address

import dnslib

from drivetrain_engine.networks.lookup import Names

#: Seconds that an answer may be remembered; as docker's.
TTL = 600


#: Of a message: its id, flags, and how many questions, answers, authorities and more it has.
_HEAD = struct.Struct(">6H")
_QUERY_OR_OPERATION, _RECURSION_DESIRED = 0xF800, 0x0100
_ANSWER, _TRUNCATED = 0x8080, 0x0200
#: A name that stands in the question, the type and class behind it, its TTL and the size of data.
_RECORD = struct.Struct(">HHHIH")
_VERSIONS = {1: socket.AF_INET, 28: socket.AF_INET6}


def quick(data: bytes, names: Names) -> bytes | None:
    """Answer a datagram that asks for a container's addresses, as nearly all do.

    Returns:
        The same as :func:`answer`, in a tenth of the time; ``None``: dnslib has to look at it.
    """
    try:
        identity, flags, questions, *others, more = _HEAD.unpack_from(data)
        labels, offset = [], _HEAD.size
        while size := data[offset]:
            labels.append(data[offset + 1 : offset + 1 + size])
            offset += 1 + size
        end = offset + 5
        kind, family_of_names = struct.unpack_from(">HH", data, offset + 1)
        name = b".".join(labels).decode("ascii").lower()
    except (IndexError, struct.error, UnicodeDecodeError):
        return None
    plain = questions == 1 and not any(others) and not flags & _QUERY_OR_OPERATION
    family = _VERSIONS.get(kind) if family_of_names == 1 else None
    if not plain or family is None or max(map(len, labels), default=64) > 63:
        return None
    room = 512
    if more:
        if more > 1 or data[end : end + 3] != b"\0\0\x29":
            return None
        room = max(room, int.from_bytes(data[end + 3 : end + 5], "big"))
    addresses = names.find(name)
    if addresses is None:
        return None
    chosen = [text for text in addresses if (":" in text) == (family == socket.AF_INET6)]
    random.shuffle(chosen)
    packed = [socket.inet_pton(family, text) for text in chosen]
    body = b"".join(_RECORD.pack(0xC00C, kind, 1, TTL, len(each)) + each for each in packed)
    flags = _ANSWER | flags & _RECURSION_DESIRED
    if end + len(body) > room:
        flags, body, packed = flags | _TRUNCATED, b"", []
    return _HEAD.pack(identity, flags, 1, len(packed), 0, 0) + data[_HEAD.size : end] + body


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
