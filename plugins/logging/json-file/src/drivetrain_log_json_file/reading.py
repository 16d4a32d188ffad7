"""Reading the files back: whole, the tail, since and until, and following."""

from __future__ import annotations

import gzip
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from drivetrain.log import LogQuery, Record
from drivetrain_log_json_file.files import LogFiles, named_in_head
from drivetrain_log_json_file.lines import decode

BLOCK = 256 << 10
#: Seconds between looks of a follow, at most.
PAUSE = 0.1


def read(files: LogFiles, query: LogQuery) -> Iterator[Record]:
    """Yield what the query asks for, oldest first."""
    opened = _open_all(files)
    try:
        newest = opened[-1][1] if opened else None
        if query.tail != 0:
            records = _records(opened, query)
            if query.tail > 0:
                records = iter(_last(records, query.tail))
            yield from records
        elif newest is not None:
            newest.seek(0, os.SEEK_END)
            _back_to_line(newest)
        if query.follow:
            yield from _follow(files, newest, query)
    finally:
        for _, file in opened:
            file.close()


def _open_all(files: LogFiles) -> list[tuple[Path, BinaryIO]]:
    """Open all files; once open, a rotation cannot take them away."""
    while True:
        opened: list[tuple[Path, BinaryIO]] = []
        try:
            for path in files.all():
                if path.suffix == ".gz":
                    opened.append((path, cast(BinaryIO, gzip.open(path, "rb"))))
                else:
                    opened.append((path, path.open("rb", buffering=0)))
        except FileNotFoundError:
            for _, file in opened:
                file.close()
            continue
        if _nodes(files.all()) == [os.fstat(file.fileno()).st_ino for _, file in opened]:
            return opened
        # A rotation came between: what was opened may have a gap.
        for _, file in opened:
            file.close()


def _same(path: Path, file: BinaryIO) -> bool:
    try:
        found, mine = path.stat(), os.fstat(file.fileno())
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def _records(opened: list[tuple[Path, BinaryIO]], query: LogQuery) -> Iterator[Record]:
    # Where the newest file has enough lines, the others need not be read.
    short = opened and 0 < query.tail <= 10_000 and not query.until
    if short and _seek_tail(opened[-1][1], query.tail):
        opened = opened[-1:]
    for _, file in opened:
        for lines in _lines(file):
            records = decode(lines)
            if query.since or query.until:
                records = [record for record in records if record.time >= query.since]
            if query.until:
                records = [record for record in records if record.time <= query.until]
            yield from records


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield complete lines, many at once; the position is left behind the last of them."""
    rest = b""
    while block := file.read(BLOCK):
        lines, newline, end = block.rpartition(b"\n")
        if not newline:
            rest += block
            continue
        yield rest + lines
        rest = end
    if rest and file.seekable():
        file.seek(-len(rest), os.SEEK_CUR)


def _seek_tail(file: BinaryIO, count: int) -> bool:
    """Go to where the last ``count`` lines begin, with as many pieces as they may have.

    A line of pieces counts once: blocks are read backwards until enough ends are found. Without
    enough of them the position is the beginning, and the answer false.
    """
    position = file.seek(0, os.SEEK_END)
    needed = count + 1
    while position > 0 and needed > 0:
        size = min(1 << 16, position)
        position -= size
        file.seek(position)
        needed -= file.read(size).count(b'\\n"')
    file.seek(position)
    if needed > 0:
        file.seek(0)
        return False
    _skip_line(file, position)
    return True


def _skip_line(file: BinaryIO, position: int) -> None:
    """Go to the beginning of the first line behind a position."""
    file.seek(position)
    if not position:
        return
    while block := file.read(1 << 16):
        end = block.find(b"\n")
        if end >= 0:
            file.seek(position + end + 1)
            return
        position += len(block)


def _last(records: Iterator[Record], count: int) -> list[Record]:
    """Return the records of the last ``count`` lines, in the order of the file."""
    kept: deque[list[tuple[int, Record]]] = deque(maxlen=count)
    open_lines: dict[str, list[tuple[int, Record]]] = {}
    for number, record in enumerate(records):
        line = open_lines.get(record.stream)
        if line is None:
            line = []
            kept.append(line)
        line.append((number, record))
        if record.partial is not None and not record.partial.last:
            open_lines[record.stream] = line
        else:
            open_lines.pop(record.stream, None)
    found = [entry for line in kept for entry in line]
    # Lines of pieces may be interleaved with those of the other stream.
    found.sort(key=lambda entry: entry[0])
    return [record for _, record in found]


def _back_to_line(file: BinaryIO) -> None:
    """Go back to the end of the last complete line."""
    end = file.tell()
    position = end
    while position > 0:
        size = min(1 << 14, position)
        position -= size
        file.seek(position)
        found = file.read(size).rfind(b"\n")
        if found >= 0:
            file.seek(position + found + 1)
            return
    file.seek(0)


def _follow(files: LogFiles, file: BinaryIO | None, query: LogQuery) -> Iterator[Record]:
    """Yield what comes; goes on in the next file when this one was rotated away."""
    mine: BinaryIO | None = None
    try:
        while True:
            ended = query.ended() or 0 < query.until < time.time_ns()
            if file is None:
                file = mine = _first(files)
            if file is not None:
                # Seen before the read: if it was rotated by then, nothing more is written to it.
                rotated = not _same(files.path, file)
                for lines in _lines(file):
                    for record in decode(lines):
                        if record.time < query.since:
                            continue
                        if query.until and record.time > query.until:
                            return
                        yield record
                following = _next(files, file) if rotated else None
                if following is not None:
                    if mine is not None:
                        mine.close()
                    file = mine = following
                    continue
            if ended:
                return
            query.wait(PAUSE)
    finally:
        if mine is not None:
            mine.close()


def _first(files: LogFiles) -> BinaryIO | None:
    for path in files.all():
        if (file := _open(path)) is not None:
            return file
    return None


def _open(path: Path) -> BinaryIO | None:
    try:
        if path.suffix == ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _next(files: LogFiles, file: BinaryIO) -> BinaryIO | None:
    """Open the file that was written after ``file``; ``None``: look again soon.

    Rotation renames and compresses. What is open keeps its number (inode), under any name; what was
    compressed meanwhile has the number that it had before in its head.
    """
    mine = os.fstat(file.fileno()).st_ino
    for _ in range(10):
        present = files.all()
        nodes = _nodes(present)
        place = _place(present, nodes, mine)
        if None in nodes or place is None:
            continue  # renamed while we looked
        if place >= len(present):
            return None
        found = _open(present[place])
        right = found is not None and os.fstat(found.fileno()).st_ino == nodes[place]
        # A rotation between the looks at two names hides the file that was between them.
        if right and _nodes(files.all()) == nodes:
            return found
        if found is not None:
            found.close()
    return None


def _place(present: list[Path], nodes: list[int | None], mine: int) -> int | None:
    """Return where the file after ``mine`` is; ``None``: it cannot be told now."""
    if mine in nodes:
        return len(nodes) - nodes[::-1].index(mine)
    try:
        heads = [named_in_head(path) if path.suffix == ".gz" else 0 for path in present]
    except FileNotFoundError:
        return None
    # Neither: it is gone beyond max-file, and the oldest that is left is next.
    return len(heads) - heads[::-1].index(mine) if mine in heads else 0


def _nodes(paths: list[Path]) -> list[int | None]:
    found: list[int | None] = []
    for path in paths:
        try:
            found.append(path.stat().st_ino)
        except FileNotFoundError:
            found.append(None)
    return found
