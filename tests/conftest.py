"""Fixtures of all tests that need a running engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from drivetrain.testing.hosts import Host


@pytest.fixture(scope="module")
def engine_host() -> Iterator[Host]:
    """A host whose daemon runs, with the image busybox; shared by the tests of a module."""
    with Host() as host:
        host.start()
        host.load_busybox()
        yield host


@pytest.fixture
def host(engine_host: Host) -> Iterator[Host]:
    """The module's host, without any container before and after the test."""
    yield engine_host
    engine_host.clear()


@pytest.fixture
def fresh_host() -> Iterator[Host]:
    """A host of the test's own, whose daemon does not run yet."""
    with Host() as host:
        yield host
