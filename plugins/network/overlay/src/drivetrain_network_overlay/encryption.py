"""Encrypted networks: the ring of keys in etcd, and what follows from it on this host.

The ring has at most three secrets, each with a number. One is for *sending*; all are for receiving.
Rotation has two steps, so that nobody sends by a key that another host does not have yet: first a
new secret is added (*announced*), and when that has settled it becomes the one for sending. The
oldest goes with the next announcement.

No two states share a key. The key for packets from one host to another is derived from the secret,
the two addresses and the *session* of the sender: a random word that is new whenever its states
were lost, as after a reboot. So the counters in AES-GCM's nonces never begin anew under a key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from drivetrain.errors import EngineError
from drivetrain.network import Address
from drivetrain_network_overlay import kv
from drivetrain_network_overlay.documents import HostDocument
from drivetrain_network_overlay.following import Follower
from drivetrain_network_overlay.kv import Item
from drivetrain_network_overlay.xfrm import Policy, State, Xfrm

if TYPE_CHECKING:
    from drivetrain_network_overlay.cluster import Cluster

log = logging.getLogger("engine.network.overlay")
_KEPT = 3


@dataclass(frozen=True)
class Ring:
    """The secrets.

    Attributes:
        secrets: by number, the newest last; hexadecimal.
        sending: the number of the one to send by.
        changed: when it was changed last, in seconds since 1970.
    """

    secrets: dict[str, str]
    sending: int
    changed: float

    @classmethod
    def decode(cls, data: bytes) -> Ring:
        """Read it."""
        return cls(**json.loads(data))

    def encode(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def first(cls, now: float) -> Ring:
        """Return a new one."""
        return cls({"1": os.urandom(32).hex()}, 1, now)

    def advanced(self, now: float, rotation: float, settle: float) -> Ring | None:
        """Return the next step of the rotation when its time has come."""
        newest = max(map(int, self.secrets))
        if newest != self.sending:
            ready = now - self.changed >= settle
            return replace(self, sending=newest, changed=now) if ready else None
        if now - self.changed < rotation:
            return None
        kept = sorted(self.secrets, key=int)[-(_KEPT - 1) :]
        secrets = {number: self.secrets[number] for number in kept}
        return Ring({**secrets, str(newest + 1): os.urandom(32).hex()}, self.sending, now)


def derive(secret: bytes, session: str, source: Address, destination: Address) -> State:
    """Return the state for packets from one host to another (HKDF, RFC 5869, with SHA-256)."""
    context = f"overlay {session} {source} {destination}".encode()
    found, block = b"", b""
    for number in (1, 2):
        block = hmac.new(secret, block + context + bytes([number]), hashlib.sha256).digest()
        found += block
    # SPIs up to 255 are reserved.
    spi = int.from_bytes(found[36:40], "big") | 0x100
    return State(source, destination, spi, found[:36])


class Encryption:
    """Keeps the states of this host in line with the ring and with the hosts it reaches.

    Nothing is done until this host is on an encrypted network.

    Args:
        root: keeps the session over restarts.
        cluster: knows the networks that this host is on.
    """

    def __init__(self, root: Path, cluster: Cluster) -> None:
        self._file = root / "session.json"
        self._cluster = cluster
        self._xfrm = Xfrm(cluster.settings.port + 1)
        self._lock = threading.RLock()
        self._ring: Ring | None = None
        self._hosts: dict[Address, HostDocument] = {}
        self._session = ""
        self._states: dict[str, State] = {}
        self._policies: dict[tuple[Address, Address], Policy] = {}
        self._followers: list[Follower] = []
        self._stop = threading.Event()
        self._probed = False

    def probe(self) -> None:
        """Find out whether this host can encrypt.

        Raises:
            NotSupported: it cannot.
        """
        if not self._probed:
            self._xfrm.probe()
            self._probed = True

    def close(self) -> None:
        """Leave; states and policies stay."""
        self._stop.set()
        for follower in self._followers:
            follower.close()

    def update(self) -> None:
        """Make the kernel agree with who is reached by encrypted networks now."""
        domains = [
            domain
            for domain in list(self._cluster.domains.values())
            if domain.network.options.boolean("encrypted")
        ]
        with self._lock:
            if not self._followers:
                if not domains:
                    return
                self._begin()
            try:
                self._apply({tunnel for domain in domains for tunnel in domain.tunnels()})
            except EngineError as error:
                log.error("encrypted networks: %s", error)

    # The ring

    def _begin(self) -> None:
        self._xfrm.block()
        self._resume()
        self._cluster.membership.describe(session=self._session)
        store = self._cluster.store
        self._followers = [
            Follower(store.etcd, store.keys.ring, self._ring_told, "overlay-keys"),
            Follower(store.etcd, store.keys.hosts, self._hosts_told, "overlay-hosts"),
        ]
        for follower in self._followers:
            follower.start()
        threading.Thread(target=self._rotate, name="overlay-rotation", daemon=True).start()

    def _ring_told(self, changed: Sequence[Item], gone: Sequence[Item]) -> None:
        ring = Ring.decode(changed[-1].value) if changed else None
        if ring is None:
            self._advance()
            return
        with self._lock:
            self._ring = ring
        self.update()

    def _hosts_told(self, changed: Sequence[Item], gone: Sequence[Item]) -> None:
        with self._lock:
            for item in changed:
                host = HostDocument.decode(item.value)
                self._hosts[ip_address(host.address)] = host
            # Hosts that are gone stay known: their endpoints are gone too, and a state that was
            # removed and made again would begin its counter anew.
        self.update()

    def _rotate(self) -> None:
        settings = self._cluster.settings
        pause = max(0.2, min(settings.settle, settings.rotation) / 4)
        while not self._stop.wait(pause):
            try:
                self._advance()
            except EngineError as error:
                log.debug("no rotation of keys now: %s", error)
            except Exception:
                log.exception("rotation of keys")

    def _advance(self) -> None:
        """Take the next step of the rotation; of several hosts that try, one does."""
        store, settings = self._cluster.store, self._cluster.settings
        item = store.etcd.get(store.keys.ring)
        now = time.time()
        if item is None:
            fresh: Ring | None = Ring.first(now)
        else:
            fresh = Ring.decode(item.value).advanced(now, settings.rotation, settings.settle)
        if fresh is not None:
            revision = item.revision if item is not None else 0
            store.etcd.transact(
                [kv.unchanged(store.keys.ring, revision)],
                [kv.put(store.keys.ring, fresh.encode())],
            )

    # The kernel

    def _resume(self) -> None:
        """Go on with the session whose states the kernel has, or begin a new one."""
        try:
            kept = json.loads(self._file.read_text())
            session, numbers = str(kept["session"]), set(kept["numbers"])
        except (OSError, ValueError, KeyError):
            session, numbers = "", set()
        if session and numbers <= self._xfrm.numbers():
            self._session = session
            return
        self._xfrm.clear()
        self._xfrm.block()
        self._session = os.urandom(16).hex()
        self._remember(set())

    def _remember(self, numbers: set[int]) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps({"session": self._session, "numbers": sorted(numbers)}))
        os.replace(fresh, self._file)

    def _apply(self, tunnels: set[Address]) -> None:
        ring = self._ring
        if ring is None:
            return
        local = self._cluster.local
        states: dict[str, State] = {}
        policies: dict[tuple[Address, Address], Policy] = {}
        for tunnel in {*tunnels, *self._known()}:
            host = self._hosts.get(tunnel)
            if host is None or not host.session or tunnel == local:
                continue
            for number, secret in ring.secrets.items():
                key = bytes.fromhex(secret)
                out = derive(key, self._session, local, tunnel)
                into = derive(key, host.session, tunnel, local)
                states[out.name], states[into.name] = out, into
                if int(number) == ring.sending:
                    policies[local, tunnel] = Policy(local, tunnel, out.number)
                    policies[tunnel, local] = Policy(tunnel, local)
        self._program(states, policies)

    def _known(self) -> set[Address]:
        """Return the hosts that states were made for: theirs stay until the keys are retired."""
        return {state.destination for state in self._states.values()} - {self._cluster.local}

    def _program(
        self, states: dict[str, State], policies: dict[tuple[Address, Address], Policy]
    ) -> None:
        added = [state for name, state in states.items() if name not in self._states]
        present = self._xfrm.numbers() if added else set()
        fresh = [state for state in added if state.number not in present]
        # Remembered first: what a crash leaves in the kernel without being remembered is used on.
        local = self._cluster.local
        if added:
            self._remember({s.number for s in states.values() if s.source == local})
        self._xfrm.add_states(fresh)
        self._xfrm.set_policies(
            [policy for pair, policy in policies.items() if self._policies.get(pair) != policy]
        )
        self._xfrm.delete_policies(
            [policy for pair, policy in self._policies.items() if pair not in policies]
        )
        self._xfrm.delete_states(
            [state for name, state in self._states.items() if name not in states]
        )
        self._states, self._policies = states, policies
