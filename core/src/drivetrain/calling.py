"""Calling a driver: every hook goes through pluggy, and every error says who raised it.

A :class:`Driver` wraps one instance of a driver's class. It has a pluggy ``PluginManager`` of its
own with the driver, the family's defaults behind it and the middleware around both. Its ``call``
has one function per hook of the family, with the hook's own signature::

    driver.call.layer_create("k1", (), Options())

Loading checks what can be checked then: hooks that do not exist, arguments that the hook does not
have, required hooks that are missing. See :class:`ContractError`.
"""

from __future__ import annotations

import errno
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Generic, cast

import pluggy

from drivetrain.errors import EngineError, Exhausted, Internal, NotSupported, Provider
from drivetrain.families import Family, H

if TYPE_CHECKING:
    from drivetrain.tracing import Trace

__all__ = ["ContractError", "Driver", "Family"]


class ContractError(NotSupported):
    """A driver does not keep to the contract of its family; the fault is its author's."""


class Driver(Generic[H]):
    """One instance of a driver, ready to be called.

    Args:
        family: what kind of driver it is.
        name: the name users know it by.
        instance: the object whose ``@hookimpl`` methods implement the hooks.
        distribution: the pip package that it came with.
        version: that package's version.
        middleware: objects whose ``@hookimpl(wrapper=True)`` methods wrap the hooks; the first
            is the outermost.
        trace: told of every call, when given.

    Raises:
        ContractError: the object does not fit the family's hooks.
    """

    def __init__(
        self,
        family: Family[H],
        name: str,
        instance: object,
        *,
        distribution: str = "unknown",
        version: str = "0",
        middleware: Sequence[object] = (),
        trace: Trace | None = None,
    ) -> None:
        self.family = family.name
        self.name = name
        self.distribution = distribution
        self.version = version
        self.instance = instance
        self._manager = _manager(self, family, middleware)
        calls = SimpleNamespace()
        for hook in family.hook_names:
            call = self._bind(getattr(family.hooks, hook))
            setattr(calls, hook, call if trace is None else trace.around(self, hook, call))
        #: The hooks as functions. Typed as the family's hookspecs.
        self.call: H = cast(H, calls)

    def __repr__(self) -> str:
        return f"<{self.family} driver {self.label}>"

    @property
    def label(self) -> str:
        """``overlay2 (drivetrain-storage-overlay2 0.1.0)``."""
        return f"{self.name} ({self.distribution} {self.version})"

    def implements(self, hook: str) -> bool:
        """Tell whether the driver itself, rather than a default, implements a hook."""
        caller = getattr(self._manager.hook, hook, None)
        return caller is not None and any(
            implementation.plugin is self.instance for implementation in caller.get_hookimpls()
        )

    def hook(self, name: str) -> Callable[..., object]:
        """Return the function of one hook, to be kept by who calls it very often."""
        return cast(Callable[..., object], getattr(self.call, name))

    def provider(self, hook: str) -> Provider:
        """Return what an error of this driver's hook carries."""
        return Provider(self.family, self.name, self.distribution, self.version, hook)

    def _bind(self, spec: Callable[..., object]) -> Callable[..., object]:
        """Make the function that calls a hook: positional or keyword arguments, errors signed."""
        hook = spec.__name__

        def signed(error: Exception) -> EngineError:
            return self._signed(hook, error)

        def signing(result: Iterable[object] | None) -> Iterable[object] | None:
            return self._signing(hook, result) if isinstance(result, Iterator) else result

        scope: dict[str, object] = {
            "caller": getattr(self._manager.hook, hook),
            "signed": signed,
            "signing": signing,
        }
        exec(_compiled(spec), scope)
        function = cast(Callable[..., object], scope[hook])
        function.__doc__ = spec.__doc__
        return function

    def _signed(self, hook: str, error: Exception) -> EngineError:
        """Return ``error`` as one that a user may see, with its provider."""
        if isinstance(error, EngineError):
            if error.provider is None and self._went_through(hook, error.__traceback__):
                error.provider = self.provider(hook)
            return error
        prefix = f"{self.family} driver {self.label} failed in {hook}: "
        result: EngineError
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            result = Exhausted(prefix + str(error))
        elif isinstance(error, OSError):
            result = Internal(prefix + str(error))
        else:
            result = Internal(prefix + f"{type(error).__name__}: {error}")
        result.provider = self.provider(hook)
        result.__cause__ = error
        return result

    def _went_through(self, hook: str, traceback: TracebackType | None) -> bool:
        """Tell whether an error came out of the driver's code rather than of a middleware's."""
        codes = {
            getattr(implementation.function, "__code__", None)
            for implementation in getattr(self._manager.hook, hook).get_hookimpls()
            if implementation.plugin is self.instance
        }
        while traceback is not None:
            if traceback.tb_frame.f_code in codes:
                return True
            traceback = traceback.tb_next
        return False

    def _signing(self, hook: str, items: Iterator[object]) -> Iterator[object]:
        """Hand out what a hook yields; an error on the way is signed as one of the call."""
        try:
            yield from items
        except Exception as error:
            raise self._signed(hook, error)  # noqa: B904


@functools.cache
def _compiled(spec: Callable[..., object]) -> CodeType:
    """Return the definition of the function that calls a hook, for all drivers.

    It is compiled, as a generic ``*args, **kwargs`` would cost as much again as pluggy.
    """
    hook = spec.__name__
    names = list(inspect.signature(spec).parameters)[1:]
    lazy = "Itera" in str(spec.__annotations__.get("return", ""))
    source = (
        f"def {hook}({', '.join(names)}):\n"
        f"    try:\n"
        f"        result = caller({', '.join(f'{name}={name}' for name in names)})\n"
        f"    except Exception as error:\n"
        f"        raise signed(error)\n"
        f"    return {'signing(result)' if lazy else 'result'}\n"
    )
    return compile(source, f"<call of {hook}>", "exec")


class _Manager(pluggy.PluginManager):
    """Looks at no names that Python has for itself: they are most of an object's, and no hooks.

    An instance is made for each use of a driver, and pluggy takes 20 µs for each name.
    """

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return None if name.startswith("__") else super().parse_hookimpl_opts(plugin, name)

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> pluggy.HookspecOpts | None:
        return None if name.startswith("__") else super().parse_hookspec_opts(module_or_class, name)


def _manager(
    driver: Driver[H], family: Family[H], middleware: Sequence[object]
) -> pluggy.PluginManager:
    from drivetrain.checking import check_driver, check_middleware

    check_driver(driver, family)
    manager = _Manager("drivetrain")
    manager.add_hookspecs(family.hooks)
    manager.register(family.defaults_plugin)
    manager.register(driver.instance)
    for wrapper in reversed(middleware):
        if not manager.is_registered(wrapper):
            check_middleware(wrapper)
            manager.register(wrapper)
    return manager
