"""A host's place in the cluster: its leases, and what goes with them.

Two leases, since two things end at different times. The *presence* lease (seconds) goes with the
host's own key and its endpoints: when the host dies, the others forget its containers at once. The
*address* lease (hours) goes with its claims on addresses: a host that is only cut off keeps them,
as its containers still run and still use them. When it could not renew that lease for so long that
it may end, the host first stops using the addresses itself (it is *fenced*); only after that may
another host get them. So no address is ever in use twice, whoever is cut off from whom.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from drivetrain.errors import EngineError, NotFound, Unavailable
from drivetrain.network import Address
from drivetrain_network_overlay.documents import Claim, EndpointDocument, HostDocument
from drivetrain_network_overlay.store import Allocator, Store

log = logging.getLogger("engine.network.overlay")
#: Part of the address lease that is left when the host fences itself.
_MARGIN = 0.1
#: Seconds between attempts while etcd does not answer.
_RETRY = 0.5
_BEFORE = "not connected yet"


@dataclass(frozen=True, slots=True)
class Terms:
    """How long the leases are, in seconds."""

    presence: int = 30
    addresses: int = 86400


class Membership:
    """Keeps a host and its endpoints registered, over every interruption.

    Args:
        store: of the cluster.
        host: what others see of this one.
        terms: of the leases.
        file: keeps the id of the address lease over restarts.
        fenced: called with the endpoints that must not send any more (``None``: all of them), from
            the thread of the leases or from who registers.
        reached: called whenever etcd answers again after it did not.
    """

    def __init__(
        self, store: Store, host: HostDocument, terms: Terms, file: Path,
        fenced: Callable[[str | None], None], reached: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._host = host
        self._terms = terms
        self._file = file
        self._fenced = fenced
        self._reached = reached
        self._lock = threading.RLock()
        self._endpoints: dict[str, EndpointDocument] = {}
        self._owed: list[tuple[Allocator, Address, str]] = []
        self._left: set[tuple[str, str]] = set()
        self._presence = 0
        self._addresses = self._kept_lease()
        self._registered = False
        self._is_fenced = False
        self._renewed = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overlay-leases", daemon=True)
        self.failure = _BEFORE

    # Beginning and end

    def start(self) -> None:
        """Register now when etcd answers, and keep trying when not."""
        self._beat()
        self._thread.start()

    def close(self) -> None:
        """Stop renewing; what is registered stays until the leases end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def leave(self) -> None:
        """Have the others forget this host at once."""
        with self._lock:
            if self._presence:
                self._store.etcd.revoke(self._presence)
                self._presence = 0
                self._registered = False

    @property
    def host(self) -> HostDocument:
        """What others see of this host."""
        return self._host

    @property
    def connected(self) -> bool:
        """Whether etcd answered last time."""
        return not self.failure

    def lease(self) -> int:
        """Return the lease that claims go with.

        Raises:
            Unavailable: etcd does not answer.
        """
        with self._lock:
            # While etcd is away the thread keeps trying: nobody else has to wait for that.
            if not self._registered and not (self.failure and self._thread.is_alive()):
                self._beat()
            if not self._addresses or self.failure:
                raise Unavailable(f"the cluster cannot be reached: {self.failure}")
            return self._addresses

    # Endpoints

    def register(self, endpoint: EndpointDocument) -> None:
        """Have the others know an endpoint whose addresses are claimed.

        Raises:
            Unavailable: etcd does not answer.
        """
        with self._lock:
            self.lease()
            self._endpoints[endpoint.id] = endpoint
            try:
                self._put(endpoint)
            except NotFound:
                self._registered = False
                self._beat()

    def replace(self, endpoint: EndpointDocument) -> None:
        """Have the others know an endpoint's new description; when etcd is away, later."""
        with self._lock:
            if endpoint.id not in self._endpoints:
                return
            self._endpoints[endpoint.id] = endpoint
            if self._registered:
                try:
                    self._put(endpoint)
                except EngineError:
                    # The next beat registers everything again.
                    self._registered = False

    def adopt(self, endpoint: EndpointDocument) -> None:
        """Take care of an endpoint that exists since before a restart; etcd may be away."""
        with self._lock:
            self._endpoints[endpoint.id] = endpoint
            self._registered = False

    def refresh(self) -> None:
        """Register everything again as soon as possible."""
        with self._lock:
            self._registered = False
            self._beat()

    def unregister(self, network: str, endpoint: str) -> None:
        """Have the others forget an endpoint; when etcd is away, as soon as it answers again.

        Raises:
            Unavailable: it is away.
        """
        with self._lock:
            self._endpoints.pop(endpoint, None)
            self._left.add((network, endpoint))
            self._check()
            self._store.etcd.delete(self._store.keys.endpoint(network, endpoint))
            self._left.discard((network, endpoint))

    def _check(self) -> None:
        """While etcd is away the thread keeps trying: nobody else has to wait for that."""
        if self.failure and self._thread.is_alive():
            raise Unavailable(f"the cluster cannot be reached: {self.failure}")

    def give_back(self, allocator: Allocator, address: Address, owner: str) -> None:
        """Release an address; when etcd is away, as soon as it answers again."""
        with self._lock:
            try:
                self._check()
                allocator.give_back(address, owner)
            except Unavailable:
                self._owed.append((allocator, address, owner))

    def endpoints(self) -> list[EndpointDocument]:
        """Return the endpoints of this host."""
        with self._lock:
            return list(self._endpoints.values())

    def describe(self, **changes: str) -> None:
        """Change what others see of this host."""
        with self._lock:
            self._host = replace(self._host, **changes)
            self.refresh()

    def _put(self, endpoint: EndpointDocument) -> None:
        key = self._store.keys.endpoint(endpoint.network, endpoint.id)
        self._store.etcd.put(key, endpoint.encode(), self._presence)

    # Leases

    def _run(self) -> None:
        pause = max(0.2, self._terms.presence / 3)
        while not self._stop.wait(pause if not self.failure else min(pause, _RETRY)):
            try:
                with self._lock:
                    self._beat()
            except Exception:
                log.exception("the leases of this host")

    def _beat(self) -> None:
        """Renew the leases, or register anew when they ended; fence when that took too long."""
        asked = time.monotonic()
        try:
            renewed = self._renew()
            if not renewed or not self._registered:
                self._register_all()
        except EngineError as error:
            self._failed(error)
            return
        self._renewed = asked
        was, self.failure = self.failure, ""
        if self._is_fenced:
            self._is_fenced = False
            log.warning("the cluster answers again: this host's endpoints are back")
        if was:
            self._reached()

    def _failed(self, error: EngineError) -> None:
        if self.failure in ("", _BEFORE):
            log.warning("the cluster cannot be reached, trying again: %s", error)
        self.failure = str(error)
        self._registered = False
        limit = self._terms.addresses * (1 - _MARGIN)
        # The next look at the clock is after the next attempt.
        later = time.monotonic() + _RETRY + self._store.etcd.patience
        if self._endpoints and not self._is_fenced and later - self._renewed > limit:
            log.error("no contact to the cluster for %.0f s: this host's endpoints stop", limit)
            self._is_fenced = True
            self._fenced(None)

    def _renew(self) -> bool:
        """Return whether both leases go on."""
        client = self._store.etcd
        if self._addresses and not client.keep_alive(self._addresses):
            self._addresses = 0
        if self._presence and not client.keep_alive(self._presence):
            self._presence = 0
        return bool(self._addresses and self._presence)

    def _register_all(self) -> None:
        client = self._store.etcd
        if not self._addresses:
            self._addresses = client.grant(self._terms.addresses)
            self._file.write_text(json.dumps({"lease": self._addresses}))
        if not self._presence:
            self._presence = client.grant(self._terms.presence)
        client.put(self._store.keys.host(self._host.id), self._host.encode(), self._presence)
        for endpoint in list(self._endpoints.values()):
            self._register_again(endpoint)
        for network, name in list(self._left):
            if name not in self._endpoints:
                client.delete(self._store.keys.endpoint(network, name))
            self._left.discard((network, name))
        while self._owed:
            allocator, address, owner = self._owed[-1]
            if owner not in self._endpoints:
                allocator.give_back(address, owner)
            self._owed.pop()
        self._registered = True

    def _register_again(self, endpoint: EndpointDocument) -> None:
        claim = Claim(self._host.id, endpoint.id)
        for address in endpoint.plain_addresses():
            try:
                holder = self._store.claim(endpoint.network, address, claim, self._addresses)
            except NotFound as error:
                if self._store.network(endpoint.network) is not None:
                    raise
                holder = Claim("", str(error))
            if holder is not None:
                log.error(
                    "endpoint %s of container %s lost its address %s to %s: it is cut off until "
                    "the container is started again",
                    endpoint.id[:12], endpoint.container[:12], address, holder.owner,
                )  # fmt: skip
                self._endpoints.pop(endpoint.id, None)
                self._fenced(endpoint.id)
                self._store.etcd.delete(self._store.keys.endpoint(endpoint.network, endpoint.id))
                return
        self._put(endpoint)

    def _kept_lease(self) -> int:
        try:
            return int(json.loads(self._file.read_text())["lease"])
        except (OSError, ValueError, KeyError):
            return 0
