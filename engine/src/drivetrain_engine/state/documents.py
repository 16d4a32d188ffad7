"""Documents in SQLite, one file for a data root.

The journal is a write-ahead log with ``synchronous=NORMAL``: after a crash of the process nothing
is lost, after a loss of power at most the last moments, and the file is consistent in both cases.
Reads are answered from memory: the documents of a host are few, and asked for often.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from drivetrain.errors import Exhausted, Internal
from drivetrain.host.flags import keep_in_place

#: Raised when the meaning of documents changes; an older engine refuses a newer file.
VERSION = 1
#: What SQLite says where a disk is full; the second when it lacks room for its index.
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

Document = dict[str, Any]


class State:
    """All tables of a data root.

    Args:
        path: the SQLite file; ``None`` keeps everything in memory.

    Raises:
        Internal: the file is damaged, or was written by a newer version.
        Exhausted: there is no room to open it.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._tables: dict[str, Table] = {}
        try:
            if path is not None:
                # Records hold secrets: of volumes, log drivers, environments.
                path.touch(0o600)
                path.chmod(0o600)
                if not (index := path.with_name(f"{path.name}-shm")).exists():
                    keep_in_place(index)  # SQLite has it in memory, and btrfs may be full
            self._connection = sqlite3.connect(
                path or ":memory:", check_same_thread=False, isolation_level=None
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS documents"
                " (kind TEXT, id TEXT, body BLOB, PRIMARY KEY (kind, id)) WITHOUT ROWID"
            )
            (found,) = self._connection.execute("PRAGMA user_version").fetchone()
            if found > VERSION:
                raise Internal(
                    f"{path} was written by a newer version of the engine (format {found}, this"
                    f" one knows {VERSION}): install that version, or use another --data-root"
                )
            if found < VERSION:  # a write, for which a full disk has no room
                self._connection.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_ROOM:
                raise Exhausted(f"cannot open {path}: {error}; make room on its disk") from error
            raise Internal(f"cannot read {path}: {error}; move it away to start anew") from error

    def table(self, name: str) -> Table:
        """Return the documents of one kind."""
        with self._lock:
            if name not in self._tables:
                self._tables[name] = Table(self, name)
            return self._tables[name]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes inside together or not at all; may be nested in one thread."""
        with self._lock:
            if not self._depth:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if not self._depth:
                    self._connection.execute("ROLLBACK")
                    for table in self._tables.values():
                        table.forget()
                raise
            self._depth -= 1
            if not self._depth:
                self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def load(self, kind: str) -> dict[str, Document]:
        """Read all documents of a kind from the file."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT id, body FROM documents WHERE kind = ?", (kind,)
            ).fetchall()
        return {name: msgspec.json.decode(body) for name, body in rows}

    def write(self, kind: str, name: str, document: Document) -> None:
        """Write one document."""
        body = msgspec.json.encode(document)
        self._execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", kind, name, body)

    def _execute(self, statement: str, *values: str | bytes) -> None:
        try:
            with self._lock:
                self._connection.execute(statement, values)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL:
                raise
            raise Exhausted(
                "No space left on device for the engine's records: make room below the data root"
            ) from error

    def erase(self, kind: str, name: str) -> None:
        """Remove one document, if it is there."""
        self._execute("DELETE FROM documents WHERE kind = ? AND id = ?", kind, name)

    @property
    def lock(self) -> threading.RLock:
        """Held by every reader and writer."""
        return self._lock


class Table:
    """Documents of one kind by id. What is returned belongs to the caller: a copy each time."""

    def __init__(self, state: State, name: str) -> None:
        self._state = state
        self._name = name
        self._documents: dict[str, bytes] | None = None

    def _cache(self) -> dict[str, bytes]:
        if self._documents is None:
            self._documents = {
                name: msgspec.json.encode(document)
                for name, document in self._state.load(self._name).items()
            }
        return self._documents

    def get(self, name: str) -> Document | None:
        """Return a document, or ``None``."""
        with self._state.lock:
            body = self._cache().get(name)
        return None if body is None else msgspec.json.decode(body)

    def put(self, name: str, document: Document) -> None:
        """Write a document, replacing what is there."""
        with self._state.lock:
            cache = self._cache()
            self._state.write(self._name, name, document)
            cache[name] = msgspec.json.encode(document)

    def delete(self, name: str) -> None:
        """Remove a document; one that is not there is fine."""
        with self._state.lock:
            cache = self._cache()
            self._state.erase(self._name, name)
            cache.pop(name, None)

    def items(self) -> dict[str, Document]:
        """Return all documents by id."""
        with self._state.lock:
            bodies = dict(self._cache())
        return {name: msgspec.json.decode(body) for name, body in bodies.items()}

    def forget(self) -> None:
        """Read from the file again at the next use."""
        self._documents = None
