"""Volumes as tar archives: export and import."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from drivetrain.errors import FailedPrecondition
from drivetrain_engine.containers.rooted import Root
from drivetrain_engine.containers.tarring import tar_directory
from drivetrain_engine.containers.untarring import Extraction
from drivetrain_engine.state import new_id
from drivetrain_engine.volumes import Paused, Volumes


def export_volume(volumes: Volumes, name: str, paused: Paused) -> Iterator[bytes]:
    """Yield a tar of a volume's content, which nobody changes until its end.

    Args:
        volumes: the service.
        name: of the volume.
        paused: returns the containers that are paused, and stay so meanwhile.

    Raises:
        InUse: a container may be writing the files.
    """
    user = f"export-{new_id()[:12]}"
    with volumes.mounted_quiet(name, user, paused) as path, Root(path) as root:
        place = root.open("/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield from tar_directory(place, "./", root=True)
        finally:
            os.close(place)


def import_volume(volumes: Volumes, name: str, stream: IO[bytes]) -> None:
    """Unpack a tar into a volume that is empty.

    Args:
        volumes: the service.
        name: of the volume.
        stream: the tar, plain.

    Raises:
        FailedPrecondition: the volume has content already.
        InvalidArgument: it is no tar.
        InUse: a container has the volume mounted.
    """
    user = f"import-{new_id()[:12]}"
    with volumes.mounted_quiet(name, user, tuple) as path:
        if any(entry != "lost+found" for entry in os.listdir(path)):
            raise FailedPrecondition(
                f"volume {name} is not empty: import into a new one, then engine volume restore"
            )
        with Root(path) as root:
            Extraction(root, "/", no_overwrite=False, owner=None).run(stream)
