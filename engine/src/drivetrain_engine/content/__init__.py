"""Images: an OCI image layout on disk, archives in and out, names, removal."""

from drivetrain_engine.content.changes import apply_changes
from drivetrain_engine.content.images import Images
from drivetrain_engine.content.layerstream import LayerStream
from drivetrain_engine.content.model import Image
from drivetrain_engine.content.reference import Reference, parse_reference, short_id

__all__ = [
    "Image",
    "Images",
    "LayerStream",
    "Reference",
    "apply_changes",
    "parse_reference",
    "short_id",
]
