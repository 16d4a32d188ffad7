"""Layers: which driver holds what, who uses it, and where it is mounted."""

from drivetrain_engine.layers.selection import choose_default
from drivetrain_engine.layers.store import Layers

__all__ = ["Layers", "choose_default"]
