"""Reading a stored layer: inflated, and compared with its diff id at the end."""

from __future__ import annotations

import hashlib
import io
import threading
from queue import Empty, Queue
from typing import BinaryIO, cast

from drivetrain.errors import Internal
from drivetrain_engine.content.compression import INFLATE_ERRORS, MAGIC_LENGTH, detect, inflater

_CHUNK = 1 << 20
_DEPTH = 4


class LayerStream(io.RawIOBase):
    """The tar of a layer. Read it to its end: only there a damaged blob shows.

    A thread reads and inflates ahead of the consumer, which hashes.

    Args:
        blob: the stored layer; closed with the stream.
        diff_id: what the inflated content has to have.
    """

    def __init__(self, blob: BinaryIO, diff_id: str) -> None:
        self._blob = blob
        self._diff_id = diff_id
        self._hash = hashlib.sha256()
        self._queue: Queue[bytes | BaseException] = Queue(_DEPTH)
        self._rest = memoryview(b"")
        self._ended = False
        self._stop = False
        self._thread = threading.Thread(target=self._produce, daemon=True, name="layer-read")
        self._thread.start()

    def _produce(self) -> None:
        try:
            head = self._blob.read(MAGIC_LENGTH)
            self._blob.seek(0)
            source = io.BufferedReader(cast(io.RawIOBase, self._blob), 1 << 18)
            reader = inflater(source, detect(head))
            while not self._stop and (chunk := reader.read(_CHUNK)):
                self._queue.put(chunk)
            self._queue.put(b"")
        except BaseException as error:
            self._queue.put(error)

    def readable(self) -> bool:
        """Return true."""
        return True

    def _next(self) -> None:
        item = self._queue.get()
        if isinstance(item, INFLATE_ERRORS):
            self._ended = True
            raise Internal(f"layer {self._diff_id} is damaged: {item}; load the image again")
        if isinstance(item, BaseException):
            self._ended = True
            raise item
        if item:
            self._hash.update(item)
            self._rest = memoryview(item)
            return
        self._ended = True
        found = "sha256:" + self._hash.hexdigest()
        if found != self._diff_id:
            raise Internal(
                f"layer {self._diff_id} is damaged: its content has the digest {found}; "
                "remove the image and load it again"
            )

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill the buffer with what there is; 0 at the end.

        Raises:
            Internal: the content is not that of the diff id.
        """
        if not self._rest and not self._ended:
            self._next()
        view = memoryview(buffer).cast("B")
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def read(self, size: int | None = -1, /) -> bytes:
        """Return what there is, up to ``size`` bytes; all to the end when negative."""
        if size is None or size < 0:
            return self.readall()
        if not self._rest and not self._ended:
            self._next()
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return data

    def close(self) -> None:
        """Stop reading; the content is not compared when the end was not reached."""
        if self.closed:
            return
        self._stop = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except Empty:
                pass
        self._blob.close()
        super().close()
