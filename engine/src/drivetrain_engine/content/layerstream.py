"""Reading a stored layer: inflated, and compared with its diff id at the end."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from queue import Empty, Queue
from types import TracebackType

from drivetrain.errors import Internal
from drivetrain_engine.content.compression import INFLATE_ERRORS, MAGIC_LENGTH, detect, inflater

#: Bytes of a piece: large enough for the hash to run beside other threads, small enough for the
#: memory to stay with the process instead of coming anew for each.
_CHUNK = 1 << 18
_DEPTH = 8


class LayerStream:
    """The tar of a layer; a context. Read it to its end: only there a damaged blob shows.

    Args:
        blob: the stored layer; closed with the stream.
        diff_id: what the inflated content has to have.
    """

    def __init__(self, blob: io.FileIO, diff_id: str) -> None:
        self._blob = blob
        self._diff_id = diff_id
        self._compression = detect(os.pread(blob.fileno(), MAGIC_LENGTH, 0))
        self._queue: Queue[bytes | BaseException] = Queue(_DEPTH)
        self._stop = False
        self._thread: threading.Thread | None = None

    @property
    def plain(self) -> io.FileIO | None:
        """The file that holds the tar as it is, at its beginning; ``None``: it is compressed.

        Who reads it has to read the pieces too, or nobody compares the digest.
        """
        return None if self._compression else self._blob

    def pieces(self) -> Iterator[memoryview]:
        """Yield the tar; a piece is good until the next one.

        Raises:
            Internal: at the end: the content is not that of the diff id; or it does not inflate.
        """
        digest = hashlib.sha256()
        for piece in self._inflated() if self._compression else self._stored():
            digest.update(piece)
            yield piece
        found = "sha256:" + digest.hexdigest()
        if found != self._diff_id:
            raise Internal(
                f"layer {self._diff_id} is damaged: its content has the digest {found}; "
                "remove the image and load it again"
            )

    def _stored(self) -> Iterator[memoryview]:
        """Read without moving the position, which another reader has."""
        buffer = memoryview(bytearray(_CHUNK))
        at = 0
        while got := os.preadv(self._blob.fileno(), [buffer], at):
            at += got
            yield buffer[:got]

    def _inflated(self) -> Iterator[memoryview]:
        """Inflate in a thread, ahead of the consumer."""
        self._thread = threading.Thread(target=self._produce, daemon=True, name="layer-read")
        self._thread.start()
        while item := self._queue.get():
            if isinstance(item, INFLATE_ERRORS):
                raise Internal(f"layer {self._diff_id} is damaged: {item}; load the image again")
            if isinstance(item, BaseException):
                raise item
            yield memoryview(item)

    def _produce(self) -> None:
        try:
            reader = inflater(io.BufferedReader(self._blob, _CHUNK), self._compression)
            while not self._stop and (chunk := reader.read(_CHUNK)):
                self._queue.put(chunk)
            self._queue.put(b"")
        except BaseException as error:
            self._queue.put(error)

    def __enter__(self) -> LayerStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading; the content is not compared when the end was not reached."""
        self._stop = True
        while self._thread is not None and self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except Empty:
                pass
        self._blob.close()
