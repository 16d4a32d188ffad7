"""What the conformance kits of all families share: how a kit gets its driver and its checks.

The author of a driver writes three lines, and pytest runs every check that fits the driver::

    from drivetrain.testing.storage import StorageConformance

    class TestMine(StorageConformance):
        driver = "mine"

A check of an optional hook that the driver does not implement is not collected at all, rather
than skipped: what pytest lists is what the driver promises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar, cast

from drivetrain.calling import Driver
from drivetrain.options import Option, Options, parse_options
from drivetrain.registry import Registry

F = TypeVar("F", bound=Callable[..., object])
Predicate = Callable[[Driver[Any]], object]


def needs(*hooks: str) -> Callable[[F], F]:
    """Mark a check that makes sense only for drivers which implement all of ``hooks``."""
    return when(lambda driver: all(driver.implements(hook) for hook in hooks))


def when(predicate: Predicate) -> Callable[[F], F]:
    """Mark a check that makes sense only for drivers that ``predicate`` holds for.

    It is called once, when the class of checks is defined, with an unopened instance::

        @when(lambda driver: driver.call.network_traits().ports)
        def test_a_published_port_leads_to_the_container(self): ...
    """

    def mark(check: F) -> F:
        conditions = (*getattr(check, "_conditions", ()), predicate)
        check._conditions = conditions  # type: ignore[attr-defined]
        return check

    return mark


class Conformance:
    """The base of the kits.

    Attributes:
        family: set by each kit.
        driver: set by the author of a driver: its name.
        options: the driver's options for the checks, as strings, where its defaults do not do.
        registry: where the driver comes from; the installed ones unless it is changed.
    """

    family: ClassVar[str] = ""
    driver: ClassVar[str] = ""
    options: ClassVar[Mapping[str, str]] = {}
    registry: ClassVar[Registry] = Registry()

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        if not cls.driver:
            return
        driver = cls.registry.driver(cls.family, cls.driver)
        for name in dir(cls):
            conditions = getattr(getattr(cls, name), "_conditions", ())
            if not all(condition(driver) for condition in conditions):
                # pytest sees the subclass's attribute first, and collects only what is callable.
                setattr(cls, name, None)

    def new_driver(self) -> Driver[Any]:
        """Return an instance as after a start of the process: nothing opened."""
        return self.registry.driver(self.family, self.driver)

    def parsed(
        self, driver: Driver[Any], hook: str, given: Mapping[str, str] | None = None
    ) -> Options:
        """Return options as the engine hands them over.

        Args:
            driver: whose options.
            hook: the hook that declares them, such as ``storage_options``.
            given: the user's strings; by default the class's ``options``.
        """
        schema = cast("tuple[Option, ...]", getattr(driver.call, hook)())
        return parse_options(
            f"{driver.family} driver {driver.name}",
            schema,
            self.options if given is None else given,
        )
