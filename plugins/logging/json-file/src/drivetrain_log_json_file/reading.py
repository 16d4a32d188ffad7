"""Reading the files back: whole, the tail, since and until, and following."""

from __future__ import annotations

import gzip
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from drivetrain.log import LogQuery, Record
from drivetrain_log_json_file.files import LogFiles
from drivetrain_log_json_file.lines import decode

BLOCK = 1 << 20
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
        if _distinct(opened) and (not opened or _same(files.path, opened[-1][1])):
            return opened
        for _, file in opened:
            file.close()


def _distinct(opened: list[tuple[Path, BinaryIO]]) -> bool:
    nodes = [os.fstat(file.fileno()).st_ino for _, file in opened]
    return len(set(nodes)) == len(nodes)


def _same(path: Path, file: BinaryIO) -> bool:
    try:
        found, mine = path.stat(), os.fstat(file.fileno())
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def _records(opened: list[tuple[Path, BinaryIO]], query: LogQuery) -> Iterator[Record]:
    plain = [file for path, file in opened if path.suffix != ".gz"]
    if 0 < query.tail <= 10_000 and len(opened) == 1 and not query.until:
        _seek_tail(plain[-1], query.tail)
    for _, file in opened:
        for line in _lines(file):
            record = decode(line)
            if record is None or record.time < query.since:
                continue
            if query.until and record.time > query.until:
                continue
            yield record


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield complete lines; the position is left behind the last of them."""
    rest = b""
    while block := file.read(BLOCK):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        yield from lines
    if rest and file.seekable():
        file.seek(-len(rest), os.SEEK_CUR)


def _seek_tail(file: BinaryIO, count: int) -> None:
    """Go to where the last ``count`` lines begin, with as many pieces as they may have.

    A line of pieces counts once, so that blocks are read backwards until enough ends are found.
    """
    position = file.seek(0, os.SEEK_END)
    needed = count + 1
    while position > 0 and needed > 0:
        size = min(1 << 16, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        needed -= block.count(b'\\n"')
    file.seek(position)
    if position:
        skipped = file.read(1 << 16)
        end = skipped.find(b"\n")
        while end < 0 and skipped:
            position += len(skipped)
            skipped = file.read(1 << 16)
            end = skipped.find(b"\n")
        file.seek(position + end + 1)


def _last(records: Iterator[Record], count: int) -> list[Record]:
    """Return the records of the last ``count`` lines."""
    kept: deque[list[Record]] = deque(maxlen=count)
    open_lines: dict[str, list[Record]] = {}
    for record in records:
        line = open_lines.get(record.stream)
        if line is None:
            line = []
            kept.append(line)
        line.append(record)
        if record.partial is not None and not record.partial.last:
            open_lines[record.stream] = line
        else:
            open_lines.pop(record.stream, None)
    return (
        sorted((r for line in kept for r in line), key=lambda r: r.time)
        if _mixed(kept)
        else [record for line in kept for record in line]
    )


def _mixed(lines: deque[list[Record]]) -> bool:
    return any(len(line) > 1 for line in lines)


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
            ended = query.ended()
            if file is None and files.path.exists():
                file = mine = files.path.open("rb", buffering=0)
            if file is not None:
                # Seen before the read: if it was rotated by then, nothing more is written to it.
                rotated = not _same(files.path, file)
                for line in _lines(file):
                    record = decode(line)
                    if record is None or record.time < query.since:
                        continue
                    if query.until and record.time > query.until:
                        return
                    yield record
                if rotated:
                    following = _next(files, file)
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


def _next(files: LogFiles, file: BinaryIO) -> BinaryIO | None:
    """Open the file that was written after ``file``; ``None``: look again soon."""
    node = os.fstat(file.fileno()).st_ino
    number = 1
    while True:
        path = files.numbered(number)
        try:
            if path.stat().st_ino == node:
                newer = files.numbered(number - 1) if number > 1 else files.path
                return newer.open("rb", buffering=0)
        except FileNotFoundError:
            # Compressed, or gone beyond max-file: the oldest plain file that is left is next.
            candidates = [p for p in files.all() if p.suffix != ".gz"]
            return candidates[0].open("rb", buffering=0) if candidates else None
        number += 1
