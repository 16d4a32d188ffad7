"""Checks of log drivers whose connection is reset in mid-stream.

What is promised depends on the protocol. Where the receiver acknowledges (``acknowledged``),
everything arrives, in order; a batch whose acknowledgement was lost arrives twice, at once. Where
it does not, nobody can know what a connection took with it: what was on its way is lost, a record
may come as its beginning only, and the batch that was being sent comes again. In both cases order
is kept, no record is mixed with another, and what is sent after the cut arrives.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from drivetrain.log import Batch
from drivetrain.testing.base import when
from drivetrain.testing.log.kit import START, LogKit, remote
from drivetrain.testing.log.relay import Relay

BATCHES, LINES, MOST = 60, 200, 3000
#: No multiples of a record's size: the cuts are in the middle of one.
CUTS = [100_003, 7, 250_007]


class Cuts(LogKit):
    """What arrives, in spite of connections that are cut."""

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        if not cls.driver:
            return
        cuttable = cls.receiver_type is not None and cls.receiver_type.cuttable
        if not cuttable or not cls.acknowledged:
            setattr(cls, "test_a_lost_acknowledgement_costs_no_record", None)  # noqa: B010
        if not cuttable:
            setattr(cls, "test_a_cut_connection_costs_no_more_than_promised", None)  # noqa: B010

    @contextmanager
    def _relay(self, cut_after: list[int], cut_answers: int = 0) -> Iterator[Relay]:
        """Put a relay between the driver and its receiver."""
        receiver = self.receiver
        assert receiver is not None
        own = receiver.port
        relay = Relay(own, cut_after, cut_answers)
        receiver.port = relay.port
        try:
            yield relay
        finally:
            receiver.port = own
            for driver in self.opened:
                driver.call.log_close()
            relay.close()

    def _numbered(self, relay: Relay, resets: int) -> list[str]:
        """Write numbered lines until the relay has cut as often as it should; return what came."""
        driver = self.open()
        number = 0
        while number < BATCHES or relay.resets < resets:
            lines = [b"%06d%b" % (number * LINES + place, b"." * 90) for place in range(LINES)]
            self.write(driver, Batch("stdout", START + number, lines), patience=60)
            driver.call.log_flush()
            number += 1
            assert number < MOST, f"{relay.resets} of {resets} connections were cut"
            if not self.acknowledged:
                time.sleep(0.01)  # else it is all in the buffers of the first connection
        self.write(driver, Batch("stdout", START + number, [b"the end"]), patience=60)
        driver.call.log_close()
        assert self.receiver is not None
        self.receiver.eventually_has("the end")
        self._written = number * LINES
        return [record.text for record in self.receiver.received()]

    @when(remote)
    def test_a_cut_connection_costs_no_more_than_promised(self) -> None:
        with self._relay(CUTS) as relay:
            came = self._numbered(relay, len(CUTS))
        self._check(came, len(CUTS))

    @when(remote)
    def test_a_lost_acknowledgement_costs_no_record(self) -> None:
        with self._relay([], cut_answers=2) as relay:
            came = self._numbered(relay, 2)
        self._check(came, 2)

    def _check(self, came: list[str], cuts: int) -> None:
        """Raise AssertionError unless the records are those that the protocol promises."""
        assert came[-1] == "the end"
        whole = [text for text in came[:-1] if len(text) == 96]
        torn = [text for text in came[:-1] if len(text) != 96]
        assert all(text == f"{text[:6]:.<{len(text)}}" for text in came[:-1]), "records are mixed"
        numbers = [int(text[:6]) for text in whole]
        steps = list(zip([-1, *numbers], numbers, strict=False))
        backward = [(one, other) for one, other in steps if other <= one]
        forward = [(one, other) for one, other in steps if other > one + 1]
        assert len(backward) <= cuts
        # The batch that was being sent comes again, from its start.
        assert all(other % LINES == 0 and one - other < LINES for one, other in backward)
        if self.acknowledged:
            assert torn == []
            assert forward == []
            assert numbers[-1] == self._written - 1
        else:
            assert len(torn) <= cuts
            assert len(forward) <= cuts
