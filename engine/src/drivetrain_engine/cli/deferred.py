"""Modules that click imports and a command line seldom needs, loaded at their first use.

``inspect`` alone takes 13 ms to import, as long as docker's whole client runs. The standard
library's LazyLoader does not help before Python 3.12: a second ``import`` already loads.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """Stands for a module until something of it is asked for, and has all of it from then on."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = importlib.import_module(self.__name__)
        self.__dict__.update(real.__dict__)
        return getattr(real, name)


def defer(*names: str) -> None:
    """Have modules, of those that are not imported yet, be executed at their first use."""
    for name in names:
        sys.modules.setdefault(name, _Deferred(name))


defer("inspect", "ipaddress")
