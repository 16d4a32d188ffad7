"""Registries: pulling and pushing images by the distribution API.

https://distribution.github.io/distribution/spec/api/
"""

from drivetrain_engine.content.registry.credentials import (
    Credentials,
    decode_header,
    parse_credentials,
    registry_domain,
)
from drivetrain_engine.content.registry.service import Registries
from drivetrain_engine.content.registry.settings import RegistrySettings

__all__ = [
    "Credentials",
    "Registries",
    "RegistrySettings",
    "decode_header",
    "parse_credentials",
    "registry_domain",
]
