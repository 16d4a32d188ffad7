"""What one sandbox may resolve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drivetrain_engine.networks.forwarding import Forwarder


@dataclass(frozen=True, slots=True)
class Names:
    """What one sandbox may resolve.

    Attributes:
        find: returns the addresses of a name as texts, or ``None`` when it is no container's.
        reverse: returns the name of an address, or ``None``.
        forwarders: servers for everything else.
    """

    find: Callable[[str], list[str] | None]
    reverse: Callable[[str], str | None]
    forwarders: Sequence[Forwarder]
