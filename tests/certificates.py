"""Certificates for tests of TLS."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificates(directory: Path) -> None:
    """Make ``NAME.pem`` and ``NAME.key``: an authority ``ca`` with ``server`` and ``client``, and
    an ``intruder`` from the authority ``stranger``. The server is 127.0.0.1.
    """
    for ca in ("ca", "stranger"):
        _openssl(
            directory, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{ca}.key",
            "-out", f"{ca}.pem", "-subj", f"/CN={ca}", "-days", "2",
        )  # fmt: skip
    for name, ca in (("server", "ca"), ("client", "ca"), ("intruder", "stranger")):
        _openssl(
            directory, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key",
            "-out", f"{name}.csr", "-subj", f"/CN={name}",
            "-addext", "subjectAltName=IP:127.0.0.1",
        )  # fmt: skip
        _openssl(
            directory, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey",
            f"{ca}.key", "-CAcreateserial", "-out", f"{name}.pem", "-days", "2",
            "-copy_extensions", "copy",
        )  # fmt: skip


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)
