"""The conformance kit of storage drivers.

Three lines make a suite::

    from drivetrain.testing.storage import StorageConformance

    class TestMine(StorageConformance):
        driver = "mine"

A driver that needs a certain file system, a directory that somebody prepared, or options, says so
by more attributes; see :class:`~drivetrain.testing.storage.kit.StorageKit`::

    class TestMine(StorageConformance):
        driver = "mine"
        file_system = "btrfs"
        options = {"mine.mode": "fast"}

The checks do what the engine does: they mount what the driver returns, write, unmount, commit.
They need root. On a host that cannot carry the driver they are skipped with the driver's own
reason; with ``DRIVETRAIN_NO_SKIP=1`` in the environment, as where nothing may be missed, they fail.

What the engine guarantees before it calls a driver (keys are not used twice, parents exist and are
committed, nothing with children is removed, views are not committed, mounts are counted) is no
check of a driver's; the engine has its own tests of it.
"""

from drivetrain.testing.entries import CAPABILITY
from drivetrain.testing.storage.contents import Contents
from drivetrain.testing.storage.differences import Differences
from drivetrain.testing.storage.endings import Endings
from drivetrain.testing.storage.kit import StorageKit
from drivetrain.testing.storage.limits import Limits
from drivetrain.testing.storage.stacks import Stacks


class StorageConformance(Contents, Stacks, Differences, Endings, Limits):
    """What every storage driver has to do; see ``drivetrain.storage``."""


__all__ = ["CAPABILITY", "StorageConformance", "StorageKit"]
