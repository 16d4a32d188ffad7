"""Images: an OCI image layout on disk, archives in and out, registries, names, removal."""

from drivetrain_engine.content.changes import apply_changes
from drivetrain_engine.content.images import Images
from drivetrain_engine.content.layerstream import LayerStream
from drivetrain_engine.content.model import Image
from drivetrain_engine.content.reference import Reference, parse_reference, short_id
from drivetrain_engine.content.registry import (
    RegistrySettings,
    decode_header,
    parse_credentials,
    registry_domain,
)

__all__ = [
    "Image",
    "Images",
    "LayerStream",
    "Reference",
    "RegistrySettings",
    "apply_changes",
    "decode_header",
    "parse_credentials",
    "parse_reference",
    "registry_domain",
    "short_id",
]
