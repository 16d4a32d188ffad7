"""The way of a container's output to its log drivers: splitting, waiting, spools, options."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from drivetrain.errors import InvalidArgument, Unavailable
from drivetrain.log import Batch, Partial
from drivetrain.registry import Registry
from drivetrain.testing.hosts import eventually
from drivetrain_engine.containers.logconfig import LogOwner, parse_log_configs, share_options
from drivetrain_engine.containers.protocol import LogSetup
from drivetrain_engine.containers.shim import spool
from drivetrain_engine.containers.shim.logpipe import LIMIT, Splitter
from drivetrain_engine.containers.shim.outlets import Direct, Queued
from drivetrain_engine.containers.shim.queues import Memory, Spool

OWNER = LogOwner(
    "ab" * 32,
    "web",
    Path("/nowhere"),
    image_id="sha256:" + "cd" * 32,
    image_name="busybox:1",
    command="sh -c true",
    host="here",
    labels={"team": "blue", "tier": "1"},
    env=("REGION=eu", "REALM=x", "HOME=/"),
)


def split(data: bytes, sizes: Callable[[], int], limit: int = LIMIT) -> list[Batch]:
    batches: list[Batch] = []
    splitter = Splitter("stdout", batches.append, limit)
    start = now = 0
    while start < len(data):
        size = sizes()
        splitter.feed(data[start : start + size], now)
        start, now = start + size, now + 1
    splitter.finish(now)
    return batches


def joined(batches: list[Batch]) -> list[bytes]:
    lines: list[bytes] = []
    unfinished = False
    for batch in batches:
        if batch.partial is None:
            assert not unfinished
            lines += batch.lines
            continue
        if batch.partial.ordinal == 1:
            lines.append(b"")
        lines[-1] += batch.lines[0]
        unfinished = not batch.partial.last
    return lines


@pytest.mark.parametrize("limit", [1024, LIMIT, 1 << 20])
def test_lines_survive_any_cutting_of_the_stream(limit: int) -> None:
    chance = random.Random(limit)
    lengths = [0, 1, 10, limit - 1, limit, limit + 1, 2 * limit, 3 * limit + 7, 100]
    lines = [chance.randbytes(length).replace(b"\n", b"x") for length in lengths * 2]
    for largest in (7, 4096, 1 << 18):
        if limit * len(lines) > largest * 20_000:
            continue
        batches = split(b"\n".join(lines) + b"\n", lambda m=largest: chance.randint(1, m), limit)
        assert joined(batches) == lines
        for batch in batches:
            assert all(len(line) <= limit for line in batch.lines)
            assert batch.partial is None or len(batch.lines) == 1


def test_pieces_have_one_id_and_time_and_count_from_one() -> None:
    first, second, third = split(b"y" * (2 * LIMIT + 5) + b"\n", lambda: 5000)
    assert [batch.partial.ordinal for batch in (first, second, third) if batch.partial] == [1, 2, 3]
    assert [batch.partial.last for batch in (first, second, third) if batch.partial] == [
        False, False, True,
    ]  # fmt: skip
    assert len({(b.partial.id, b.time) for b in (first, second, third) if b.partial}) == 1


def test_an_end_without_newline_is_a_piece_that_is_not_the_last() -> None:
    batches = split(b"one\ntwo", lambda: 100)
    assert joined(batches) == [b"one", b"two"]
    assert [batch.partial and batch.partial.last for batch in batches] == [None, False]
    assert split(b"x" * LIMIT + b"\n", lambda: 100)[-1].partial is None


# spools


def numbered(number: int, size: int = 0) -> Batch:
    return Batch("stdout", number, [b"%d" % number, b"x" * size])


def drained(queue: Spool) -> list[int]:
    found = []
    while (batch := queue.peek()) is not None:
        found.append(int(batch.lines[0]))
        queue.done()
    return found


def test_a_spool_keeps_everything_over_a_new_process(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    queue = Spool(folder, 1 << 20)
    odd = Batch("stderr", 5, [b"\x00\xff"], Partial("ef" * 32, 3, True))
    for batch in (numbered(1), odd, numbered(2)):
        queue.put(batch)
    assert queue.acquire()
    assert queue.peek() == numbered(1)
    queue.done()
    queue.close(writing=True)
    queue.close(writing=False)
    again = Spool(folder, 1 << 20)
    again.put(numbered(3))
    assert again.acquire()
    assert again.peek() == odd
    again.done()
    assert drained(again) == [2, 3]
    again.close(writing=True)
    again.close(writing=False)
    assert spool.waiting(folder) == 0
    assert not [entry for entry in folder.iterdir() if entry.name.isdigit()]


def test_lines_that_a_driver_took_are_not_given_again(tmp_path: Path) -> None:
    queue = Spool(tmp_path / "s", 1 << 20)
    queue.put(Batch("stdout", 1, [b"a", b"b", b"c"]))
    assert queue.acquire()
    batch = queue.peek()
    assert batch is not None
    del batch.lines[:2]
    queue.partly()
    queue.close(writing=True)
    queue.close(writing=False)
    again = Spool(tmp_path / "s", 1 << 20)
    assert again.acquire()
    assert again.peek() == Batch("stdout", 1, [b"c"])


def test_a_frame_that_a_crash_cut_is_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    queue = Spool(folder, 1 << 20)
    queue.put(numbered(1))
    queue.put(numbered(2))
    segment = next(entry for entry in folder.iterdir() if entry.name.isdigit())
    segment.write_bytes(segment.read_bytes()[:-1])
    queue.close(writing=True)
    again = Spool(folder, 1 << 20)
    again.put(numbered(3))
    assert again.acquire()
    assert drained(again) == [1, 3]


def test_only_one_delivers_from_a_spool(tmp_path: Path) -> None:
    one = Spool(tmp_path / "s", 1 << 20)
    two = Spool(tmp_path / "s", 1 << 20, writing=False)
    assert one.acquire()
    assert not two.acquire()
    one.close(writing=False)
    assert two.acquire()


# outlets


class Driver:
    """Takes what it is given, unless it is down."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.down = False
        self.allowed = threading.Event()
        self.allowed.set()

    def log_write(self, batch: Batch) -> None:
        self.allowed.wait(30)
        if self.down:
            raise Unavailable("the receiver is down")
        self.lines += batch.lines

    def log_flush(self) -> None: ...

    def log_close(self) -> None: ...


def queued(driver: Driver, queue: Memory | Spool, **setup: object) -> Queued:
    outlet = Queued(
        LogSetup("x", **setup),  # type: ignore[arg-type]
        driver,  # type: ignore[arg-type]
        lambda: None,
        lambda: None,
        queue,
    )
    outlet.open()
    return outlet


def test_without_blocking_the_oldest_lines_go_and_are_counted() -> None:
    driver = Driver()
    driver.allowed.clear()
    outlet = queued(driver, Memory(10_000), mode="non-blocking")
    for number in range(1000):
        outlet.write(Batch("stdout", number, [b"%d" % number]))
    assert not outlet.full
    driver.allowed.set()
    outlet.end(10)
    outlet.linger(1)
    assert 0 < len(driver.lines) < 300
    assert driver.lines[-1] == b"999"
    assert outlet.dropped == 1000 - len(driver.lines)


def test_a_full_spool_gives_up_the_oldest_and_counts_them(tmp_path: Path) -> None:
    driver = Driver()
    driver.down = True
    outlet = queued(driver, Spool(tmp_path / "s", 1 << 20))
    for number in range(3000):
        outlet.write(Batch("stdout", number, [b"%d " % number + b"x" * 1000]))
    assert outlet.waiting <= 1 << 20
    assert "down" in outlet.error
    driver.down = False
    eventually(lambda: outlet.waiting == 0, "everything is delivered")
    outlet.end(5)
    outlet.linger(1)
    numbers = [int(line.split()[0]) for line in driver.lines]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 2999
    assert outlet.dropped == 3000 - len(numbers)
    assert outlet.dropped > 1000


def test_a_full_spool_that_is_to_block_says_so_and_loses_nothing(tmp_path: Path) -> None:
    driver = Driver()
    driver.down = True
    outlet = queued(driver, Spool(tmp_path / "s", 1 << 20), spool_full="block")
    number = 0
    while not outlet.full:
        outlet.write(Batch("stdout", number, [b"%d " % number + b"x" * 1000]))
        number += 1
    driver.down = False
    eventually(lambda: not outlet.full, "there is room again")
    outlet.end(5)
    outlet.linger(5)
    assert [int(line.split()[0]) for line in driver.lines] == list(range(number))
    assert outlet.dropped == 0


def test_ending_does_not_wait_for_a_receiver_that_is_down(tmp_path: Path) -> None:
    driver = Driver()
    driver.down = True
    outlet = queued(driver, Spool(tmp_path / "s", 1 << 20))
    outlet.write(numbered(1))
    eventually(lambda: outlet.error, "the outlet knows")
    outlet.end(600)
    outlet.linger(600)
    assert spool.waiting(tmp_path / "s") > 0
    later = queued(Driver(), Spool(tmp_path / "s", 1 << 20))
    eventually(lambda: later.waiting == 0, "the next one delivers")
    later.end(5)


def test_a_strict_start_fails_without_the_receiver(tmp_path: Path) -> None:
    driver = Driver()
    driver.log_connect = lambda: driver.log_write(numbered(0))  # type: ignore[attr-defined]
    driver.down = True
    with pytest.raises(Unavailable, match="down"):
        queued(driver, Spool(tmp_path / "s", 1 << 20), strict=True)
    driver.down = False
    queued(driver, Spool(tmp_path / "s", 1 << 20), strict=True).end(5)


def test_what_a_full_disk_refused_is_tried_again_in_order() -> None:
    driver = Driver()
    outlet = Direct(LogSetup("x"), driver, lambda: None, lambda: None)  # type: ignore[arg-type]
    outlet.open()
    driver.down = True
    for number in range(5):
        outlet.write(Batch("stdout", number, [b"%d" % number]))
    assert outlet.error
    driver.down = False
    outlet.tick()
    outlet.write(Batch("stdout", 5, [b"5"]))
    outlet.end(1)
    assert driver.lines == [b"%d" % number for number in range(6)]
    assert (outlet.dropped, outlet.error) == (0, "")


# options


def setups(*configs: tuple[str, dict[str, str]], cache: str = "local") -> list[LogSetup]:
    registry = Registry()
    return parse_log_configs(registry, share_options(registry, configs), OWNER, cache)


def test_options_go_to_the_drivers_that_know_them() -> None:
    given = {
        "max-size": "1m",
        "fluentd:tag": "{{.Name}}",
        "tag": "{{.ID}}",
        "fluentd-address": "x:1",
        "spool-size": "2m",
    }
    files, fluentd = setups(("json-file", given), ("fluentd", {}))
    assert files.options == {"max-size": "1m"}
    assert files.context["tag"] == "ab" * 6
    assert fluentd.options == {"fluentd-address": "x:1"}
    assert fluentd.context["tag"] == "web"
    assert fluentd.spool_size == 2 << 20


@pytest.mark.parametrize(
    ("configs", "complaint"),
    [
        ([("json-file", {"max-sise": "1"}), ("fluentd", {})], "did you mean max-size"),
        ([("json-file", {"fluentd:max-size": "1"}), ("fluentd", {})], "log driver fluentd"),
        ([("local", {}), ("local", {})], "named twice"),
        ([("locl", {})], "locl"),
        ([("json-file", {"spool-size": "1g"})], "spool-size"),
        ([("fluentd", {"spool-size": "1k"})], "1m at least"),
        ([("fluentd", {"spool-full": "panic"})], "spool-full='panic'"),
        ([("fluentd", {"mode": "non-blocking", "spool-size": "2m"})], "mode=blocking"),
        ([("local", {"max-buffer-size": "2m"})], "mode=non-blocking"),
        ([("local", {"max-line-size": "17m"})], "1k to 16m"),
        ([("local", {"labels-regex": "("})], "labels-regex"),
        ([("fluentd", {"cache-max-file": "0"})], "max-file"),
    ],
)
def test_wrong_options_are_named(configs: list[tuple[str, dict[str, str]]], complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        setups(*configs)


def test_there_is_a_read_cache_where_nobody_can_read() -> None:
    given = {"cache-max-size": "1m", "cache-max-file": "2", "cache-compress": "false"}
    _, cache = setups(("fluentd", given))
    assert (cache.driver, cache.cache) == ("local", True)
    assert cache.options == {"max-size": "1m", "max-file": "2", "compress": "false"}
    assert len(setups(("fluentd", {"cache-disabled": "true"}))) == 1
    assert len(setups(("json-file", {}), ("fluentd", {}))) == 2
    assert len(setups(("none", {}))) == 1
    assert len(setups(("fluentd", {}), cache="")) == 1


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        ("{{.ID}}", "ab" * 6),
        ("{{.FullID}}", "ab" * 32),
        ("{{.Name}}/{{.Hostname}}", "web/here"),
        ("{{.ImageName}} {{.ImageID}}", "busybox:1 " + "cd" * 6),
        ("{{.ImageFullID}}", "sha256:" + "cd" * 32),
        ("{{.Command}}", "sh -c true"),
        ("{{.DaemonName}}", "engine"),
        ("{{upper .Name}}{{lower .Name}}{{title .Name}}", "WEBwebWeb"),
        ("{{json .Name}}", '"web"'),
        ('{{join (split .ImageName ":") "-"}}', "busybox-1"),
        ("{{truncate .Name 2}}", "we"),
        ("{{pad .Name 1 2}}|", " web  |"),
        ("{{.Name | upper}}", "WEB"),
    ],
)
def test_tags_have_all_variables_and_functions(template: str, tag: str) -> None:
    assert setups(("local", {"tag": template}))[0].context["tag"] == tag


def test_labels_and_variables_are_chosen_by_name_and_expression() -> None:
    given = {"labels": "team", "labels-regex": "^ti", "env": "HOME", "env-regex": "^RE"}
    assert setups(("local", given))[0].context["attributes"] == {
        "team": "blue", "tier": "1", "HOME": "/", "REGION": "eu", "REALM": "x",
    }  # fmt: skip
