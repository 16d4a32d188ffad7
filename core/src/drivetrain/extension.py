"""The contract of extensions: packages that change or watch the engine itself.

An extension is found by its entry point in ``drivetrain.extension``. All installed ones are
loaded by the daemon (and by the command line for ``extension_commands`` only); names in
``DRIVETRAIN_BLOCK`` are skipped before they are imported. All hooks are optional.

A whole extension, which refuses privileged containers and counts the events::

    class Policy:
        def __init__(self):
            self.events = 0

        @hookimpl
        def container_creating(self, spec):
            if spec["HostConfig"].get("Privileged"):
                raise PermissionDenied("privileged containers are not allowed on this host")

        @hookimpl
        def event_emitted(self, event):
            self.events += 1

        @hookimpl
        def extension_metrics(self):
            return [Metric("policy_events_total", self.events, "events seen", "counter")]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from drivetrain.markers import hookspec

if TYPE_CHECKING:
    import click

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as ``engine events`` shows it.

    Attributes:
        type: ``container``, ``image``, ``volume``, ``network`` or ``daemon``.
        action: ``create``, ``start``, ``die``, …
        id: of the object.
        attributes: name, image, exitCode, …
        time: nanoseconds since 1970.
    """

    type: str
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time: int = 0


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of ``GET /metrics`` (Prometheus text format)."""

    name: str
    value: float
    help: str = ""
    type: Literal["counter", "gauge"] = "gauge"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route of an extension answers: a body that becomes JSON, and a status."""

    body: object = None
    status: int = 200


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """A route of an extension, served below ``/extensions/NAME/``.

    Attributes:
        method: ``GET``, ``POST``, …
        path: below the extension's own prefix, such as ``status``.
        handler: called in a worker thread with the query and the JSON body.
    """

    method: str
    path: str
    handler: Callable[[Mapping[str, str], object], Answer]


class ExtensionHooks:
    """What an extension may implement."""

    @hookspec(firstresult=True)
    def extension_open(self, settings: Mapping[str, object]) -> None:
        """The daemon starts; ``settings`` are its effective settings, secrets left out."""

    @hookspec(firstresult=True)
    def extension_close(self) -> None:
        """The daemon ends."""

    @hookspec(firstresult=True)
    def event_emitted(self, event: Event) -> None:
        """Something happened. Called in order, from one thread; be quick."""

    @hookspec(firstresult=True)
    def container_creating(self, spec: Json) -> None:
        """A container is about to be made: change ``spec`` in place, or raise to refuse.

        Args:
            spec: the body of ``POST /containers/create`` with the name under ``Name``.
        """

    @hookspec(firstresult=True)
    def extension_middleware(self) -> Sequence[object]:
        """Objects whose ``@hookimpl(wrapper=True)`` methods wrap the hooks of all drivers."""

    @hookspec(firstresult=True)
    def extension_routes(self) -> Sequence[ApiRoute]:
        """Further routes of the HTTP API."""

    @hookspec(firstresult=True)
    def extension_metrics(self) -> Sequence[Metric]:
        """Lines for ``GET /metrics``."""

    @hookspec(firstresult=True)
    def extension_commands(self) -> Sequence[click.Command]:
        """Further subcommands of ``engine``."""
