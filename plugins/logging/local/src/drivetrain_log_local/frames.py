"""Frames: one for each batch, readable forwards and backwards.

::

    u32 length of the body    u8 flags    u64 time (ns)    u32 lines    u32 ordinal of a piece
    body                      the lines, joined by newlines; before a piece its id and a newline
    u32 length of all of it

Little endian. Flags: 1 stderr, 2 piece of a longer line, 4 its last piece. A frame that a crash
cut is shorter than it says, or its last length is wrong.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from drivetrain.log import Batch, Partial, Record

HEAD = struct.Struct("<IBQII")
END = struct.Struct("<I")
_STDERR, _PIECE, _LAST = 1, 2, 4
Buffer = bytes | memoryview


class Frame(NamedTuple):
    """Where a frame is in a buffer, and what its head says."""

    start: int
    end: int
    flags: int
    time: int
    count: int
    ordinal: int

    @property
    def stream(self) -> str:
        """``stdout`` or ``stderr``."""
        return "stderr" if self.flags & _STDERR else "stdout"

    @property
    def piece(self) -> bool:
        """It is a piece of a longer line."""
        return bool(self.flags & _PIECE)

    @property
    def open_end(self) -> bool:
        """It is a piece, and not the last."""
        return self.flags & (_PIECE | _LAST) == _PIECE

    def records(self, data: Buffer, attributes: dict[str, str] | None) -> list[Record]:
        """Return what is in the frame."""
        body = bytes(data[self.start + HEAD.size : self.end - END.size])
        partial = None
        if self.piece:
            identity, _, body = body.partition(b"\n")
            partial = Partial(identity.decode(), self.ordinal, not self.open_end)
        stream, time = self.stream, self.time
        return [
            Record(stream, time, line, partial, attributes)  # type: ignore[arg-type]
            for line in ([body] if partial else body.split(b"\n"))
        ]


def pack(batch: Batch) -> bytes:
    """Return a batch as a frame."""
    body = b"\n".join(batch.lines)
    flags = _STDERR if batch.stream == "stderr" else 0
    ordinal = 0
    if batch.partial is not None:
        flags |= _PIECE | (_LAST if batch.partial.last else 0)
        ordinal = batch.partial.ordinal
        body = batch.partial.id.encode() + b"\n" + body
    head = HEAD.pack(len(body), flags, batch.time, len(batch.lines), ordinal)
    return head + body + END.pack(HEAD.size + len(body) + END.size)


def forward(data: Buffer, start: int) -> Frame | None:
    """Return the frame that begins at ``start``; ``None`` when it is not all there."""
    if len(data) - start < HEAD.size:
        return None
    length, flags, time, count, ordinal = HEAD.unpack_from(data, start)
    end = start + HEAD.size + length + END.size
    if end > len(data) or END.unpack_from(data, end - END.size)[0] != end - start:
        return None
    return Frame(start, end, flags, time, count, ordinal)


def backward(data: Buffer, end: int) -> Frame | None:
    """Return the frame that ends at ``end``; ``None`` when none does."""
    if end < HEAD.size + END.size:
        return None
    start = end - END.unpack_from(data, end - END.size)[0]
    frame = forward(data, start) if 0 <= start < end else None
    return frame if frame is not None and frame.end == end else None


def valid_end(data: Buffer) -> int:
    """Return where the last whole frame ends."""
    if backward(data, len(data)) is not None:
        return len(data)
    end = 0
    while (frame := forward(data, end)) is not None:
        end = frame.end
    return end
