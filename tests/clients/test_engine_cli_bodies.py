"""Our command line asks the API for what docker's does, for the same words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.capture import Capture
from tests.docker_requests import HOME, RECORDED, comparable, prepare

from drivetrain_engine.cli.main import run

REQUESTS = json.loads(RECORDED.read_text())


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Capture]:
    with Capture(tmp_path / "api.sock") as server:
        prepare(server)
        yield server


@pytest.mark.parametrize("words", REQUESTS)
def test_the_same_words_send_dockers_requests(
    words: str, capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", HOME)
    run(["-H", capture.address, *shlex.split(words)])
    assert [comparable(one, tmp_path) for one in capture.requests] == REQUESTS[words]


def test_docker_was_heard() -> None:
    assert len(REQUESTS) > 40
    assert all(REQUESTS.values())
