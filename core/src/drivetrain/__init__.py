"""Drivetrain's small core: everything that the author of a driver needs.

The contract of each family is a module that tells the life of its objects:
:mod:`drivetrain.storage`, :mod:`drivetrain.network`, :mod:`drivetrain.log`,
:mod:`drivetrain.volume` and :mod:`drivetrain.extension`.
"""

from drivetrain.markers import hookimpl

__all__ = ["hookimpl"]
__version__ = "0.1.0"
