"""``network connect`` and ``disconnect``: containers on and off networks, running or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drivetrain.errors import EngineError, FailedPrecondition
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.networking import attachment, check_endpoint
from drivetrain_engine.containers.request.modes import container_mode
from drivetrain_engine.containers.services import Services


def connect(
    services: Services, container: Container, network: str, endpoint: Mapping[str, Any]
) -> None:
    """Connect a container to one more network.

    Raises:
        NotFound: no such network.
        FailedPrecondition: it uses the network of the host or of another container.
    """
    name = services.networks.resolve(network).name
    with container.lock:
        record = container.record
        mode = record.host.network_mode
        if container_mode(mode) or mode == "host":
            raise FailedPrecondition(
                "container sharing network namespace with another container or host cannot be "
                "connected to any other network"
            )
        check_endpoint(name, endpoint)
        asked = {key: value for key, value in endpoint.items() if value}
        services.networks.connect(
            record.id,
            attachment(name, asked),
            name=record.name,
            running=container.shim is not None,
        )
        record.networks.pop("none", None)
        record.networks[name] = asked
        services.store.save(container)


def disconnect(services: Services, container: Container, network: str, force: bool) -> None:
    """Take a container off a network.

    Args:
        services: the services of this host.
        container: the container.
        network: name, id or beginning of an id.
        force: also when the network, or the container's place on it, is gone.

    Raises:
        NotFound: no such network.
        FailedPrecondition: it is not on it, or uses the host's.
    """
    try:
        name = services.networks.resolve(network).name
    except EngineError:
        if not force:
            raise
        name = network
    with container.lock:
        record = container.record
        if record.host.network_mode == "host" and name == "host":
            raise FailedPrecondition("container cannot be disconnected from host network")
        if name not in record.networks and not force:
            raise FailedPrecondition(f"container {record.id} is not connected to network {name}")
        # One that never ran has no endpoint yet on the networks that it was made with.
        if force or container.shim is not None or name in services.networks.endpoints(record.id):
            services.networks.disconnect(record.id, name, force)
        record.networks.pop(name, None)
        services.store.save(container)
