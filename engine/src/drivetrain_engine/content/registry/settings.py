"""What the daemon knows of registries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec


class RegistrySettings(msgspec.Struct, frozen=True):
    """What the daemon knows of registries; names are those of ``daemon.json``.

    Attributes:
        mirrors: URLs that are asked for Docker Hub's images first.
        insecure: hosts with ports, or networks (``10.0.0.0/8``), that may have a certificate
            nobody signed, or no TLS at all; loopback is always one.
        max_downloads, max_uploads: at once, for one image.
        attempts: for each layer.
        certificates: folders with a folder for each ``host:port``: authorities in ``*.crt``, and
            ``NAME.cert`` with ``NAME.key`` that this host shows.
    """

    mirrors: Sequence[str] = ()
    insecure: Sequence[str] = ()
    max_downloads: int = 3
    max_uploads: int = 5
    attempts: int = 5
    certificates: Sequence[Path] = ()
