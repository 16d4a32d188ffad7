"""Which containers ``ps`` shows, and which ``prune`` removes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from drivetrain.errors import EngineError, InvalidArgument, NotFound
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.record import Record, parse_timestamp
from drivetrain_engine.containers.request.ports import split_port
from drivetrain_engine.containers.services import Services
from drivetrain_engine.content.filters import (
    Filters,
    boolean_filter,
    check_filters,
    label_filter,
    until_filter,
)

if TYPE_CHECKING:
    from drivetrain_engine.content import Image

_KNOWN = (
    "ancestor", "annotation", "before", "exited", "expose", "health", "id", "is-task", "isolation",
    "label", "label!", "name", "network", "publish", "since", "status", "volume",
)  # fmt: skip
_STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
_HEALTHS = ("none", "starting", "healthy", "unhealthy")

Test = Callable[[Container], bool]


class Listing:
    """Chooses containers by filters."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def choose(self, filters: Filters, *, all: bool, limit: int) -> list[Container]:
        """Return the containers to show, the latest first.

        Args:
            filters: of the API.
            all: those that do not run too; implied by some filters, and by ``limit``.
            limit: the latest so many; 0: all.

        Raises:
            InvalidArgument: an unknown filter or value.
            NotFound: ``before`` or ``since`` no container.
        """
        checked = check_filters(filters, _KNOWN)
        tests = [test for name, values in checked.items() for test in self._tests(name, values)]
        if set(checked) & {"label", "label!"}:
            has_labels = label_filter(checked)
            tests.append(lambda one: has_labels(one.record.labels))
        if not (all or limit > 0 or set(checked) & {"status", "exited", "before", "since"}):
            tests.append(lambda one: one.record.state.running)
        if boolean_filter(checked, "is-task") is True:
            return []  # there are no swarm tasks
        found = [
            one
            for one in self._services.store.all()
            if one.record.phase != "creating" and _passes(one, tests)
        ]
        return found[:limit] if limit > 0 else found

    def prunable(self, filters: Filters) -> list[Container]:
        """Return the containers that ``prune`` removes.

        Raises:
            InvalidArgument: an unknown filter or value.
        """
        checked = check_filters(filters, ("label", "label!", "until"))
        has_labels, until = label_filter(checked), until_filter(checked)
        return [
            one
            for one in self._services.store.all()
            if one.record.phase == "ready"
            and not one.record.state.running
            and has_labels(one.record.labels)
            and (until is None or parse_timestamp(one.record.created) < until)
        ]

    def _tests(self, name: str, values: Sequence[str]) -> list[Test]:
        """Return the tests of one filter; several values of one are alternatives."""
        match name:
            case "id":
                return [lambda one: any(one.id.startswith(value) for value in values)]
            case "name":
                return [_name_test(values)]
            case "status":
                for value in values:
                    _one_of("status", value, _STATUSES)
                return [lambda one: one.record.status in values]
            case "health":
                for value in values:
                    _one_of("health", value, _HEALTHS)
                return [lambda one: _health(one) in values]
            case "exited":
                return [_exited_test(values)]
            case "ancestor":
                return [self._ancestor_test(values)]
            case "volume":
                return [lambda one: _has_volume(one.record, values)]
            case "network":
                return [self._network_test(values)]
            case "publish" | "expose":
                return [self._port_test(name, values)]
            case "annotation":
                has = label_filter({"label": list(values)})
                return [lambda one: has(one.record.host.annotations)]
            case "before" | "since":
                return [self._age_test(name, value) for value in values]
        return []

    def _age_test(self, name: str, reference: str) -> Test:
        moment = self._services.store.find(reference).record.created
        if name == "before":
            return lambda one: one.record.created < moment
        return lambda one: one.record.created > moment

    def _ancestor_test(self, values: Sequence[str]) -> Test:
        images = self._services.images
        chains: list[tuple[str, ...]] = []
        for value in values:
            try:
                found: Image = images.get(value)
            except (NotFound, InvalidArgument):
                continue
            chains.append(found.diff_ids)

        def test(one: Container) -> bool:
            if one.record.image in values or one.record.image_id in values:
                return True
            try:
                own = images.get(one.record.image_id).diff_ids if one.record.image_id else ()
            except EngineError:
                return False
            return any(own[: len(chain)] == chain for chain in chains)

        return test

    def _network_test(self, values: Sequence[str]) -> Test:
        names = set(values)
        for value in values:
            try:
                names.add(self._services.networks.resolve(value).name)
            except EngineError:
                continue
        return lambda one: bool(names & set(one.record.networks))

    def _port_test(self, name: str, values: Sequence[str]) -> Test:
        wanted = {
            f"{port}/{protocol}"
            for value in values
            for first, last, protocol in [split_port(value)]
            for port in range(first, last + 1)
        }

        def test(one: Container) -> bool:
            record = one.record
            if name == "expose":
                return bool(wanted & set(record.config.exposed_ports or ()))
            if not record.state.running:
                return False
            places = self._services.networks.ports(record.id)
            public = {
                f"{place['HostPort']}/{key.partition('/')[2]}"
                for key, found in places.items()
                for place in found or ()
            }
            return bool(wanted & (public | {key for key, found in places.items() if found}))

        return test


def _passes(one: Container, tests: Sequence[Test]) -> bool:
    return all(test(one) for test in tests)


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidArgument(f"invalid filter '{name}={value}': one of {', '.join(known)}")


def _name_test(values: Sequence[str]) -> Test:
    try:
        patterns = [re.compile(value.lstrip("/")) for value in values]
        # Docker matches names with their slash, so that ^/name$ finds one container
        slashed = [re.compile(value) for value in values]
    except re.error as error:
        raise InvalidArgument(f"invalid filter 'name': {error}") from None
    return lambda one: (
        any(pattern.search(one.record.name) for pattern in patterns)
        or any(pattern.search("/" + one.record.name) for pattern in slashed)
    )


def _exited_test(values: Sequence[str]) -> Test:
    try:
        codes = {int(value) for value in values}
    except ValueError:
        raise InvalidArgument(f"invalid filter 'exited={','.join(values)}'") from None
    return lambda one: one.record.status == "exited" and one.record.state.exit_code in codes


def _health(one: Container) -> str:
    return one.health.status if one.health is not None else "none"


def _has_volume(record: Record, values: Sequence[str]) -> bool:
    places: Mapping[str, None] = {
        text: None
        for point in record.mounts
        for text in (point.name, point.source, point.destination)
        if text
    }
    return any(value in places for value in values)
