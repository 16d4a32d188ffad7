"""Networks: addresses, sandboxes, names and host ports; calls network drivers."""

from drivetrain_engine.networks.requests import (
    Attachment,
    EndpointInfo,
    NetworkSettings,
    PortRequest,
    SandboxRequest,
    SandboxResult,
)
from drivetrain_engine.networks.service import Networks

__all__ = [
    "Attachment",
    "EndpointInfo",
    "NetworkSettings",
    "Networks",
    "PortRequest",
    "SandboxRequest",
    "SandboxResult",
]
