"""IPsec in the kernel: states and policies of one host, by ``ip -batch``.

An encrypted network has a UDP port of its own. Policies let packets to that port pass between two
hosts only as ESP, in transport mode; two more policies block the port for everything else, so
nothing leaves in clear when a key is missing, and nothing that comes in clear is taken.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from drivetrain.errors import Internal, NotSupported
from drivetrain.network import Address

#: Marks what is ours among the states and policies of a host.
REQUEST_ID = 0x0E4E
_PAIR, _BLOCK = 1000, 2000


@dataclass(frozen=True, slots=True)
class State:
    """A security association: one direction, one key.

    Attributes:
        number: the SPI.
        key: 32 bytes for AES-256-GCM and 4 for the nonce (RFC 4106).
    """

    source: Address
    destination: Address
    number: int
    key: bytes

    @property
    def name(self) -> str:
        """How ``ip xfrm`` selects it."""
        return f"src {self.source} dst {self.destination} proto esp spi 0x{self.number:08x}"


@dataclass(frozen=True, slots=True)
class Policy:
    """What has to be encrypted: ``number`` is the SPI for sending, 0 for receiving."""

    source: Address
    destination: Address
    number: int = 0


class Xfrm:
    """The states and policies of the calling process's network namespace.

    Args:
        port: of UDP, that encrypted networks have.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def probe(self) -> None:
        """Make a state for real and remove it again.

        Raises:
            NotSupported: the kernel lacks ESP or AES-GCM, or ``ip`` is missing.
        """
        name = "src 127.0.0.1 dst 127.0.0.1 proto esp spi 0x00000fff"
        try:
            _ip([f"xfrm state add {name} {_algorithm(bytes(36))}", f"xfrm state delete {name}"])
        except Internal as error:
            raise NotSupported(
                f"this host cannot encrypt overlay networks: {error}; modprobe esp4 (esp6 for "
                "IPv6) and gcm, or make the network without --opt encrypted"
            ) from error

    def numbers(self) -> set[int]:
        """Return the SPIs of our states."""
        text = _ip(["xfrm state list"])
        found = re.findall(r"proto esp spi (0x[0-9a-f]+) reqid (\d+)", text)
        return {int(spi, 16) for spi, request in found if int(request) == REQUEST_ID}

    def block(self) -> None:
        """Let nothing pass by the port of encrypted networks that no policy of a pair covers."""
        _ip([self._blocking(any_, way) for any_ in ("0.0.0.0/0", "::/0") for way in ("in", "out")])

    def _blocking(self, everyone: str, way: str) -> str:
        selector = f"src {everyone} dst {everyone} proto udp dport {self._port}"
        return f"xfrm policy update {selector} dir {way} action block priority {_BLOCK}"

    def add_states(self, states: Sequence[State]) -> None:
        """Add states that do not exist yet."""
        _ip([f"xfrm state add {each.name} {_algorithm(each.key)}" for each in states])

    def delete_states(self, states: Sequence[State]) -> None:
        """Delete states; ones that are gone are fine."""
        _ip([f"xfrm state delete {each.name}" for each in states], force=True)

    def set_policies(self, policies: Sequence[Policy]) -> None:
        """Add policies, or change which state they send by."""
        _ip([f"xfrm policy update {self._selector(each)} {self._how(each)}" for each in policies])

    def delete_policies(self, policies: Sequence[Policy]) -> None:
        """Delete policies; ones that are gone are fine."""
        _ip([f"xfrm policy delete {self._selector(each)}" for each in policies], force=True)

    def _selector(self, policy: Policy) -> str:
        way = "out" if policy.number else "in"
        pair = f"src {policy.source} dst {policy.destination}"
        return f"{pair} proto udp dport {self._port} dir {way}"

    def _how(self, policy: Policy) -> str:
        spi = f"spi 0x{policy.number:08x} " if policy.number else ""
        pair = f"src {policy.source} dst {policy.destination}"
        return f"priority {_PAIR} tmpl {pair} proto esp {spi}reqid {REQUEST_ID} mode transport"

    def clear(self) -> None:
        """Remove everything of ours."""
        found = re.findall(
            r"src (\S+) dst (\S+)\s+proto esp spi (0x[0-9a-f]+) reqid (\d+)",
            _ip(["xfrm state list"]),
        )
        _ip(
            [
                f"xfrm state delete src {source} dst {destination} proto esp spi {spi}"
                for source, destination, spi, request in found
                if int(request) == REQUEST_ID
            ],
            force=True,
        )
        selected = re.findall(
            rf"src (\S+) dst (\S+) proto udp dport {self._port}\s+dir (in|out)",
            _ip(["xfrm policy list"]),
        )
        _ip(
            [
                f"xfrm policy delete src {source} dst {destination} proto udp dport {self._port} "
                f"dir {way}"
                for source, destination, way in selected
            ],
            force=True,
        )


def _algorithm(key: bytes) -> str:
    return (
        f"reqid {REQUEST_ID} mode transport replay-window 64 flag esn "
        f"aead rfc4106(gcm(aes)) 0x{key.hex()} 128"
    )


def _ip(commands: Sequence[str], *, force: bool = False) -> str:
    """Run commands of ``ip``; keys go by standard input, where no list of processes has them."""
    if not commands:
        return ""
    try:
        done = subprocess.run(
            ["ip", *(["-force"] if force else []), "-batch", "-"],
            input="\n".join(commands) + "\n", capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except FileNotFoundError:
        raise NotSupported("the command ip is missing: apt-get install iproute2") from None
    if done.returncode and not force:
        # Its message may repeat a command with the key in it.
        safe = ("Error:", "RTNETLINK answers:")
        told = [line for line in done.stderr.splitlines() if line.startswith(safe)]
        reason = told[0] if told else "refused"
        raise Internal(f"ip xfrm: {reason}")
    return done.stdout
