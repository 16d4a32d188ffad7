"""A client of etcd 3.4 and newer, over the JSON that its servers speak beside gRPC.

Keys and values are bytes. A request goes to the endpoint that answered last, and on to the next
one when that cannot be reached; so a request may be carried out twice, and callers write only what
may be written twice. Each request has a connection of its own thread, kept open.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from drivetrain.errors import (
    EngineError,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from drivetrain_network_overlay.kv import (
    Batch,
    Compacted,
    Event,
    Item,
    Json,
    delete,
    error_of,
    fault,
    item_of,
    prefix_end,
    put,
    text_of,
)

#: Seconds of silence after which the kernel asks whether the server is there; then every second.
_KEEPALIVE_AFTER, _KEEPALIVE_COUNT = 5, 4


@dataclass(frozen=True, slots=True)
class Access:
    """Where etcd is, and who we are.

    Attributes:
        endpoints: ``http://10.0.0.1:2379``; several are members of one cluster.
        ca_file, cert_file, key_file: paths for TLS; empty: the system's authorities.
        user, password: empty: no authentication.
        timeout: seconds that one endpoint may take to answer.
    """

    endpoints: tuple[str, ...]
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    user: str = ""
    password: str = ""
    timeout: float = 5.0

    def context(self) -> ssl.SSLContext | None:
        """Return what TLS needs, or ``None`` when no endpoint speaks it.

        Raises:
            InvalidArgument: a file cannot be used.
        """
        if not any(each.startswith("https://") for each in self.endpoints):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file or None)
        except (OSError, ssl.SSLError) as error:
            names = ", ".join(f for f in (self.ca_file, self.cert_file, self.key_file) if f)
            raise InvalidArgument(f"cannot use the TLS files {names} of etcd: {error}") from error
        return context


def _attempts(access: Access) -> int:
    """Each endpoint twice: an open connection may have been closed by the server meanwhile."""
    return 2 * len(access.endpoints) + 1


class Etcd:
    """A cluster of etcd servers; every method may be called by any thread.

    All methods raise ``Unavailable`` when no endpoint answers, ``Unauthenticated`` and
    ``PermissionDenied`` for what the user may not do.

    Args:
        access: where it is.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._context = access.context()
        self._local = threading.local()
        self._good = 0
        self._token = ""
        self._token_lock = threading.Lock()
        for endpoint in access.endpoints:
            parts = urlsplit(endpoint)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InvalidArgument(f"etcd endpoint {endpoint!r}: http(s)://host:port is needed")

    @property
    def patience(self) -> float:
        """Seconds after which a question that nobody answers is given up."""
        return self._access.timeout * _attempts(self._access)

    # Keys

    def range(self, prefix: bytes, *, limit: int = 2000) -> tuple[list[Item], int]:
        """Return everything below ``prefix``, as of one revision, and that revision."""
        found: list[Item] = []
        start, end, revision = prefix, prefix_end(prefix), 0
        while True:
            body: Json = {"key": text_of(start), "range_end": text_of(end), "limit": str(limit)}
            if revision:
                body["revision"] = str(revision)
            answer = self._call("kv/range", body)
            revision = revision or int(answer["header"]["revision"])
            page = [item_of(each) for each in answer.get("kvs", ())]
            found += page
            if not answer.get("more"):
                return found, revision
            start = page[-1].key + b"\0"

    def get(self, key: bytes) -> Item | None:
        """Return a key, or ``None``."""
        answer = self._call("kv/range", {"key": text_of(key)})
        return next((item_of(each) for each in answer.get("kvs", ())), None)

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        """Write a key.

        Raises:
            NotFound: the lease has ended.
        """
        self._call("kv/put", put(key, value, lease)["request_put"])

    def delete(self, key: bytes, end: bytes = b"") -> int:
        """Delete a key, or all from it to ``end``; return how many there were."""
        answer = self._call("kv/deleterange", delete(key, end)["request_delete_range"])
        return int(answer.get("deleted", 0))

    def transact(
        self, compare: Sequence[Json], success: Sequence[Json], failure: Sequence[Json] = ()
    ) -> tuple[bool, list[Item | None]]:
        """Do ``success`` when all comparisons hold, otherwise ``failure``.

        Returns:
            Whether they held, and what the ``get`` operations of the branch taken found.

        Raises:
            NotFound: a lease has ended.
        """
        body = {"compare": list(compare), "success": list(success), "failure": list(failure)}
        answer = self._call("kv/txn", body)
        read: list[Item | None] = []
        for response in answer.get("responses", ()):
            if "response_range" in response:
                kvs = response["response_range"].get("kvs", ())
                read.append(item_of(kvs[0]) if kvs else None)
        return bool(answer.get("succeeded")), read

    # Leases

    def grant(self, seconds: int, lease: int = 0) -> int:
        """Begin a lease and return its id."""
        body: Json = {"TTL": str(seconds)}
        if lease:
            body["ID"] = str(lease)
        return int(self._call("lease/grant", body)["ID"])

    def keep_alive(self, lease: int) -> int:
        """Renew a lease; return the seconds it has now, 0 when it has ended."""
        answer = self._call("lease/keepalive", {"ID": str(lease)})
        return int(answer.get("result", {}).get("TTL", 0))

    def revoke(self, lease: int) -> None:
        """End a lease with all keys that go with it; one that has ended is fine."""
        try:
            self._call("lease/revoke", {"ID": str(lease)})
        except NotFound:
            pass

    # Watching

    def watch(self, prefix: bytes, revision: int, stop: Stop) -> Iterator[Batch]:
        """Yield what happens below ``prefix`` from ``revision`` on, until ``stop`` is set.

        Raises:
            Unavailable: the connection broke; watch again from the last revision.
            Compacted: that history is gone.
        """
        create = {
            "key": text_of(prefix),
            "range_end": text_of(prefix_end(prefix)),
            "start_revision": str(revision),
            "progress_notify": True,
        }
        connection, response = self._open("watch", {"create_request": create})
        try:
            if not stop.guard(connection):
                return
            yield from self._batches(response, stop)
        except (OSError, ValueError, http.client.HTTPException, AttributeError) as error:
            if not stop.is_set():
                raise Unavailable(f"the watch on etcd broke: {error}") from error
        finally:
            stop.unguard(connection)
            connection.close()

    @staticmethod
    def _batches(response: http.client.HTTPResponse, stop: Stop) -> Iterator[Batch]:
        while line := response.readline():
            message = json.loads(line)
            if "error" in message:
                raise error_of(message["error"], 500)
            result = message["result"]
            if int(result.get("compact_revision", 0)):
                raise Compacted(f"etcd compacted its history up to {result['compact_revision']}")
            if result.get("canceled"):
                raise Unavailable(f"etcd ended a watch: {result.get('cancel_reason', '')}")
            events = tuple(
                Event(item_of(each["kv"]), each.get("type") == "DELETE")
                for each in result.get("events", ())
            )
            # The head's revision may be ahead of events that are still to come.
            revision = max((event.item.revision for event in events), default=0)
            begun = bool(result.get("created"))
            yield Batch(events, revision or int(result["header"]["revision"]), begun)
        if not stop.is_set():
            raise Unavailable("etcd closed a watch")

    # Requests

    def _call(self, path: str, body: Json) -> Json:
        last: Exception | None = None
        fresh = False
        count = len(self._access.endpoints)
        for number in range(_attempts(self._access)):
            index = (self._good + number // 2) % count
            try:
                answer: Json = json.loads(self._ask(index, path, body))
                self._good = index
                return answer
            except Unauthenticated:
                if fresh or not self._access.user:
                    raise
                fresh, self._token = True, ""
            except (OSError, http.client.HTTPException, ValueError, Unavailable) as error:
                self._drop(index)
                last = error
        raise Unavailable(
            f"etcd does not answer at {', '.join(self._access.endpoints)}: {last}"
        ) from last

    def _ask(self, index: int, path: str, body: Json) -> bytes:
        connection = self._connection(index)
        response = self._send(connection, index, path, body)
        data = response.read()
        if response.status != 200:
            raise fault(data, response.status)
        return data

    def _send(
        self, connection: http.client.HTTPConnection, index: int, path: str, body: Json
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        if self._access.user and path != "auth/authenticate":
            headers["Authorization"] = self._authenticated(index)
        connection.request("POST", f"/v3/{path}", json.dumps(body), headers)
        return connection.getresponse()

    def _open(self, path: str, body: Json) -> tuple[http.client.HTTPConnection, Any]:
        """Begin a request whose answer does not end."""
        last: Exception | None = None
        for number in range(len(self._access.endpoints)):
            index = (self._good + number) % len(self._access.endpoints)
            connection = self._connect(index)
            try:
                response = self._send(connection, index, path, body)
                if response.status != 200:
                    raise fault(response.read(), response.status)
                # From here on silence is normal; the kernel asks whether the server lives.
                connection.sock.settimeout(None)
                return connection, response
            except (OSError, http.client.HTTPException, EngineError) as error:
                connection.close()
                if isinstance(error, Unauthenticated):
                    self._token = ""
                last = error
        raise Unavailable(f"etcd does not answer: {last}") from last

    def _authenticated(self, index: int) -> str:
        with self._token_lock:
            if not self._token:
                body = {"name": self._access.user, "password": self._access.password}
                data = self._ask(index, "auth/authenticate", body)
                self._token = str(json.loads(data)["token"])
            return self._token

    def _connection(self, index: int) -> http.client.HTTPConnection:
        kept: dict[int, http.client.HTTPConnection] = self._local.__dict__.setdefault("kept", {})
        if index not in kept:
            kept[index] = self._connect(index)
        return kept[index]

    def _drop(self, index: int) -> None:
        kept: dict[int, http.client.HTTPConnection] = self._local.__dict__.setdefault("kept", {})
        connection = kept.pop(index, None)
        if connection is not None:
            connection.close()

    def _connect(self, index: int) -> http.client.HTTPConnection:
        parts = urlsplit(self._access.endpoints[index])
        host, port = str(parts.hostname), parts.port or 2379
        made: http.client.HTTPConnection
        if parts.scheme == "https":
            made = http.client.HTTPSConnection(
                host, port, timeout=self._access.timeout, context=self._context
            )
        else:
            made = http.client.HTTPConnection(host, port, timeout=self._access.timeout)
        made.connect()
        _keep_alive(made.sock)
        return made


class Stop:
    """Ends a watch from another thread, by shutting its connection down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._connections: set[http.client.HTTPConnection] = set()

    def set(self) -> None:
        """End all watches that have this stop."""
        with self._lock:
            self._event.set()
        self.disturb()

    def disturb(self) -> None:
        """Break the connections, so that the watches begin again."""
        with self._lock:
            for connection in self._connections:
                try:
                    connection.sock.shutdown(socket.SHUT_RDWR)
                except (OSError, AttributeError):
                    continue

    def is_set(self) -> bool:
        """Whether the end was asked for."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait; return whether the end was asked for."""
        return self._event.wait(seconds)

    def guard(self, connection: http.client.HTTPConnection) -> bool:
        """Have a connection shut down at the end; false when that has come already."""
        with self._lock:
            self._connections.add(connection)
            return not self._event.is_set()

    def unguard(self, connection: http.client.HTTPConnection) -> None:
        """The connection is closed."""
        with self._lock:
            self._connections.discard(connection)


def _keep_alive(connected: socket.socket) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_AFTER)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_COUNT)
