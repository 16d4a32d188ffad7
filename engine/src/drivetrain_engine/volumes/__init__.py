"""Volumes: names, references, image content copied in, and what users write for a mount."""

from drivetrain_engine.volumes.contents import CopyRequest
from drivetrain_engine.volumes.copyup import copy_up
from drivetrain_engine.volumes.mounts import parse_mount, parse_tmpfs
from drivetrain_engine.volumes.quiet import Paused
from drivetrain_engine.volumes.service import Volumes
from drivetrain_engine.volumes.spec import ParsedMount, parse_bind, parse_mode

__all__ = [
    "CopyRequest",
    "ParsedMount",
    "Paused",
    "Volumes",
    "copy_up",
    "parse_bind",
    "parse_mode",
    "parse_mount",
    "parse_tmpfs",
]
