"""What can be found wrong with a driver before its first call, and said in a helpful way."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from weakref import WeakSet

from drivetrain.families import NAMES, Family, H, family
from drivetrain.options import closest

if TYPE_CHECKING:
    from drivetrain.calling import Driver

#: Classes of drivers without faults, by family: an instance is made for each use of a driver.
_sound: dict[str, WeakSet[type]] = {name: WeakSet() for name in NAMES}


def methods(instance: object) -> Iterator[tuple[str, Callable[..., object], str | None]]:
    """Yield name, function and hook (``None`` when unmarked) of every method of an object."""
    for name in dir(instance):
        if name.startswith("__"):
            continue
        found = inspect.getattr_static(instance, name, None)
        function = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
        if not inspect.isfunction(function):
            continue
        marked = getattr(function, "drivetrain_impl", None)
        yield name, function, None if marked is None else marked.get("specname") or name


def parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    """Return the parameters of a method without ``self``."""
    found = list(inspect.signature(function).parameters.values())
    return found[1:] if found and found[0].name in ("self", "cls") else found


def check_driver(driver: Driver[H], kind: Family[H]) -> None:
    """Check an object against the hooks of its family.

    Raises:
        ContractError: all that is wrong, in one message.
    """
    from drivetrain.calling import ContractError

    instance_class = type(driver.instance)
    own = getattr(driver.instance, "__dict__", {}).values()
    alike = not any(map(inspect.isfunction, own))  # all its methods are those of its class
    if alike and instance_class in _sound[kind.name]:
        return
    faults: list[str] = []
    marked: set[str] = set()
    plain: dict[str, str] = {}
    for name, function, hook in methods(driver.instance):
        if hook is None:
            plain[name] = name
        elif hook not in kind.hook_names:
            faults.append(f"{hook} is not a hook{_meant(hook, kind)}")
        else:
            marked.add(hook)
            faults += _signature_faults(hook, function, kind)
    for hook in kind.hook_names:
        if hook in plain and hook not in marked:
            faults.append(f"its method {hook} lacks the marker @hookimpl")
        elif hook in kind.required and hook not in marked:
            near = [
                name
                for name in difflib.get_close_matches(hook, plain, n=1, cutoff=0.75)
                if name not in kind.hook_names
            ]
            hint = f"; its method {near[0]} has no @hookimpl, is it meant?" if near else ""
            faults.append(f"the required hook {hook} is missing{hint}")
    if faults:
        raise ContractError(
            f"{driver.family} driver {driver.label} does not keep to the contract: "
            + "; ".join(faults)
            + f". Its author finds the hooks in drivetrain.{driver.family}"
        )
    if alike:
        _sound[kind.name].add(instance_class)


def check_middleware(wrapper: object) -> None:
    """Check an object whose methods wrap the hooks of all drivers.

    Raises:
        ContractError: a hook that no family has, or a method that is no wrapper.
    """
    from drivetrain.calling import ContractError

    specs = {hook: kind for kind in map(family, NAMES) for hook in kind.hook_names}
    faults: list[str] = []
    for _name, function, hook in methods(wrapper):
        if hook is None:
            continue
        if hook not in specs:
            faults.append(f"{hook} is not a hook{closest(hook, list(specs))}")
            continue
        options = getattr(function, "drivetrain_impl", {})
        if not (options.get("wrapper") or options.get("hookwrapper")):
            faults.append(f"{hook} must be marked @hookimpl(wrapper=True), as it wraps a driver")
        faults += _signature_faults(hook, function, specs[hook])
    if faults:
        kind = type(wrapper)
        raise ContractError(
            f"middleware {kind.__module__}.{kind.__qualname__}: " + "; ".join(faults)
        )


def _meant(hook: str, kind: Family[H]) -> str:
    """Return a hint at the nearest hook, or at the family that has a hook of this name."""
    for other in NAMES:
        if other != kind.name and hook in family(other).hook_names:
            return f" of the {kind.name} family, but of {other}"
    return closest(hook, kind.hook_names) or f" of the {kind.name} family"


def _signature_faults(hook: str, function: Callable[..., object], kind: Family[H]) -> Iterator[str]:
    """Yield what keeps a method from being called with the arguments of its hook."""
    known = [parameter.name for parameter in parameters(getattr(kind.hooks, hook))]
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        yield f"{hook} is async, but hooks are plain functions"
    for parameter in parameters(function):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            yield f"{hook} takes {parameter}, but arguments are given by the names it lists"
        elif parameter.name not in known:
            accepted = closest(parameter.name, known) or f" (it has: {', '.join(known) or 'none'})"
            yield f"{hook} has no argument {parameter.name}{accepted}"
        elif parameter.default is not parameter.empty:
            # pluggy never passes an argument that has a default.
            yield f"{hook} gives its argument {parameter.name} a default, so it would never be set"
