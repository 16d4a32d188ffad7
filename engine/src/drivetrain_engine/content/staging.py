"""Taking content in: written beside the store, hashed on the way, and only then kept.

A file of any size is read in one thread, hashed in a second and, when it is compressed, inflated
and hashed in a third; a 200 MB layer is taken in at the speed of SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from types import TracebackType

import msgspec

from drivetrain_engine.content.compression import (
    INFLATE_ERRORS,
    MAGIC_LENGTH,
    Compression,
    Joined,
    corrupt,
    detect,
    inflater,
    peek,
    storable,
)

CHUNK = 1 << 20
_SMALL = 1 << 18
_DEPTH = 8


class Staged(msgspec.Struct, frozen=True):
    """A file taken in.

    Attributes:
        path: where it lies until it is kept.
        digest: ``sha256:…`` of the file.
        size: bytes of the file.
        diff_id: ``sha256:…`` of the inflated content.
        diff_size: bytes of the inflated content.
        compression: how the file is compressed.
    """

    path: Path
    digest: str
    size: int
    diff_id: str
    diff_size: int
    compression: Compression = ""

    def read(self) -> bytes:
        """Return the content, for small files."""
        return self.path.read_bytes()


class Staging:
    """A directory for one operation; leaving it removes what was not kept.

    Args:
        root: an existing directory on the file system of the store.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._numbers = itertools.count(1)  # taken by several threads

    def __enter__(self) -> Staging:
        self.directory = Path(tempfile.mkdtemp(dir=self._root))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def new_path(self) -> Path:
        """Return a fresh path in the directory."""
        return self.directory / str(next(self._numbers))

    def from_bytes(self, data: bytes) -> Staged:
        """Take in a small file from memory."""
        path = self.new_path()
        path.write_bytes(data)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        return Staged(path, digest, len(data), digest, len(data))

    def stream(self, read: Callable[[int], bytes], entry: str, *, inflate: bool = True) -> Staged:
        """Take in a file.

        Args:
            read: returns up to that many bytes, and the empty string at the end.
            entry: its name, for messages.
            inflate: find out the digest of the inflated content too. Compressions that OCI
                does not know are stored inflated.

        Raises:
            InvalidArgument: compressed data is corrupt.
        """
        head = peek(read, _SMALL)
        compression = detect(head[:MAGIC_LENGTH]) if inflate else ""
        if len(head) < _SMALL and not compression:
            return self.from_bytes(head)
        path = self.new_path()
        with open(path, "wb", buffering=0) as file:
            if storable(compression):
                return _take_in(head, read, file, path, entry, compression)
            reader = inflater(io.BufferedReader(Joined(head, read)), compression)

            def inflated(size: int) -> bytes:
                try:
                    return reader.read(size)
                except INFLATE_ERRORS as error:
                    raise corrupt(entry, compression, error) from error

            return _take_in(inflated(CHUNK), inflated, file, path, entry, "")


class _Worker(threading.Thread):
    """Consumes the chunks of a file; after a failure it only drains them."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="content-hash")
        self.queue: Queue[bytes] = Queue(_DEPTH)
        self.hash = hashlib.sha256()
        self.size = 0
        self.error: BaseException | None = None
        self._ended = False
        self.start()

    def next(self) -> bytes:
        """Return the next chunk; empty at the end, however often it is asked."""
        chunk = b"" if self._ended else self.queue.get()
        self._ended = not chunk
        return chunk

    def consume(self) -> None:
        while chunk := self.next():
            self.hash.update(chunk)
            self.size += len(chunk)

    def run(self) -> None:
        try:
            self.consume()
        except BaseException as error:
            self.error = error
            while self.next():
                pass

    @property
    def digest(self) -> str:
        return "sha256:" + self.hash.hexdigest()


class _Inflater(_Worker):
    """Hashes the inflated content of the chunks."""

    def __init__(self, compression: Compression) -> None:
        self._compression: Compression = compression
        super().__init__()

    def consume(self) -> None:
        source = io.BufferedReader(Joined(b"", self.next_part), 1 << 16)
        self._rest = memoryview(b"")
        reader = inflater(source, self._compression)
        while chunk := reader.read(CHUNK):
            self.hash.update(chunk)
            self.size += len(chunk)
        while self.next():
            pass

    def next_part(self, size: int) -> bytes:
        if not self._rest:
            self._rest = memoryview(self.next())
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)


def _write(file: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file.fileno(), view) :]


def _take_in(
    head: bytes,
    read: Callable[[int], bytes],
    file: io.FileIO,
    path: Path,
    entry: str,
    compression: Compression,
) -> Staged:
    """Write, hash and, where needed, inflate the content at once."""
    hasher = _Worker()
    workers: list[_Worker] = [hasher]
    if compression:
        workers.append(_Inflater(compression))
    try:
        chunk = head
        while chunk:
            for worker in workers:
                worker.queue.put(chunk)
            _write(file, chunk)
            chunk = read(CHUNK)
    finally:
        for worker in workers:
            worker.queue.put(b"")
        for worker in workers:
            worker.join()
    last = workers[-1]
    if isinstance(last.error, INFLATE_ERRORS):
        raise corrupt(entry, compression, last.error) from last.error
    if last.error is not None:
        raise last.error
    return Staged(path, hasher.digest, hasher.size, last.digest, last.size, compression)
