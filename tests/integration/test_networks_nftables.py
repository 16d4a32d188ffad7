"""Noticing what others do to nftables."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain.host.nft import Nft
from drivetrain.host.nftwatch import NftWatcher
from drivetrain.testing.hosts import eventually
from drivetrain.testing.netlab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


def test_transactions_of_others_are_told_and_ones_own_are_not(lab: Lab) -> None:
    told: list[set[str]] = []
    with lab.entered():
        watcher, nft = NftWatcher(told.append), Nft()
        nft.run("add table inet ours; add chain inet ours one")
        subprocess.run(["nft", "add table inet theirs"], check=True)
        eventually(lambda: told, "the change of another is told")
        subprocess.run(["nft", "flush ruleset"], check=True)
        eventually(lambda: len(told) > 1, "the flush is told")
        nft.close()
        watcher.close()
        watcher.close()
    assert told == [{"theirs"}, {"ours", "theirs"}]
