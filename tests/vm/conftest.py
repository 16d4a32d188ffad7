"""Tests of what only the second kernel can do: a folder a family, one boot for all its tests.

Outside, the machine is booted (``tools/vm``, or ``tools/uml``) for one folder after the other,
beside the tests that need none; it runs all tests of a folder which were chosen, and what it
reports is played back test by test when their turn comes. Inside, they are tests as all others.
``tools/vm .venv/bin/pytest tests/vm/storage`` shows them as they run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
#: The file for reports; set inside the machine only.
REPORT = "DRIVETRAIN_VM_REPORT"
#: Seconds that one boot with its tests may take.
DEADLINE = 1500
#: Families that need no more than user-mode Linux has.
USER_MODE = {"storage", "volume"}
#: Seconds that one test may take there: each command of a client may take ten.
PATIENCE = 900

Reports = dict[str, list[dict[str, Any]]]

_machines = ThreadPoolExecutor(1)
_played: dict[str, Future[Reports]] = {}
_running: list[subprocess.Popen[str]] = []


def _family(item: pytest.Item) -> str | None:
    path = item.path
    return path.relative_to(HERE).parts[0] if path.is_relative_to(HERE) else None


def _outside() -> bool:
    return "drivetrain_vm" not in Path("/proc/cmdline").read_text()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Outside, the first test of a folder waits for all of them; inside, each takes its time."""
    timeout = pytest.mark.timeout(0 if _outside() else PATIENCE)
    for item in items:
        if _family(item) is not None:
            item.add_marker(timeout)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Boot for each folder that has chosen tests, one after the other."""
    if not _outside() or session.config.option.collectonly:
        return
    chosen: dict[str, list[str]] = defaultdict(list)
    for item in session.items:
        family = _family(item)
        if family is not None:
            chosen[family].append(item.nodeid)
    for family, nodeids in chosen.items():
        _played[family] = _machines.submit(_boot, family, nodeids)


def pytest_sessionfinish() -> None:
    """End a machine that nobody waits for any more."""
    _machines.shutdown(wait=False, cancel_futures=True)
    for process in list(_running):
        os.killpg(process.pid, signal.SIGTERM)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Play back what the machine reported of a test."""
    family = _family(item)
    if family is None or not _outside():
        return None
    reports = _played[family].result()
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for data in reports[item.nodeid]:
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _boot(family: str, chosen: list[str]) -> Reports:
    """Run tests in the machine; what it did not report has failed with what it said last."""
    folder = PROJECT / ".vm"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as shared:
        report = Path(shared) / "report"
        report.touch()
        # File-system caches of the machine do not see what is written later: arguments by file.
        arguments = Path(shared) / "arguments"
        arguments.write_text("\n".join(["-q", "-p", "no:cacheprovider", *chosen]))
        command = [
            _tool(family), "env", f"{REPORT}={report}",
            PROJECT / ".venv/bin/python", "-m", "pytest", f"@{arguments}",
        ]  # fmt: skip
        said = _run(command)
        reports: Reports = defaultdict(list)
        for line in report.read_text().splitlines():
            data = json.loads(line)
            reports[data["nodeid"]].append(data)
    for nodeid in chosen:
        if not any(data["when"] == "teardown" for data in reports[nodeid]):
            reports[nodeid].append(_unreported(nodeid, family, said))
    return reports


def _tool(family: str) -> Path:
    """Return what boots: user-mode Linux, which is quicker, where that is enough and works."""
    small = PROJECT / "tools/uml"
    if family in USER_MODE and subprocess.run([small, "true"], capture_output=True).returncode == 0:
        return small
    return PROJECT / "tools/vm"


def _run(command: list[str | Path]) -> str:
    """Run a command of the machine's and return the end of what it said."""
    process = subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True,
    )  # fmt: skip
    _running.append(process)
    try:
        said = process.communicate(timeout=DEADLINE)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said = f"{process.communicate()[0]}\nnot ready after {DEADLINE} s"
    finally:
        _running.remove(process)
    return said[-20_000:]


def _unreported(nodeid: str, family: str, said: str) -> dict[str, Any]:
    report = pytest.TestReport(
        nodeid, (nodeid, None, nodeid), {}, "failed",
        f"the machine for {family} did not report this test; it said:\n{said}", "call",
    )  # fmt: skip
    return {**report._to_json(), "$report_type": "TestReport"}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Inside: write each report where the outside reads it."""
    place = os.environ.get(REPORT)
    if place and not _outside():
        data = {**report._to_json(), "$report_type": "TestReport"}
        with open(place, "a", encoding="utf-8") as file:
            file.write(json.dumps(data, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())
