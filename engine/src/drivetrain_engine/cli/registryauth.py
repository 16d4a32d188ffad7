"""What this user knows of registries: ``~/.docker/config.json``, shared with Docker's client."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from drivetrain_engine.cli.errors import CliError

#: The key that Docker's client uses for Docker Hub.
HUB = "https://index.docker.io/v1/"


def config_path() -> Path:
    """Return the path of the file."""
    folder = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    return Path(folder) / "config.json"


def _read() -> dict[str, Any]:
    path = config_path()
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CliError(f"cannot read {path}: {error}") from error
    if not isinstance(document, dict):
        raise CliError(f"cannot read {path}: it has to be a JSON object")
    return document


def registry_of(name: str) -> str:
    """Return the registry of an image's name, as the file has it."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return HUB if first in ("docker.io", "index.docker.io") else first
    return HUB


def header(registry: str) -> dict[str, str]:
    """Return the header with the credentials for a registry; empty when there are none.

    Raises:
        CliError: the file cannot be read, or its credential helper fails.
    """
    config = _read()
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    known = (config.get("auths") or {}).get(registry) or {}
    if helper:
        known = _ask_helper(str(helper), registry) or known
    elif known.get("auth"):
        pair = base64.b64decode(known["auth"]).decode(errors="replace")
        user, _, password = pair.partition(":")
        known = {**known, "username": user, "password": password}
    if not known:
        return {}
    document = {**known, "serveraddress": registry}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(document).encode()).decode()}


def _ask_helper(helper: str, registry: str) -> dict[str, str]:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=registry, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CliError(f"{program}, which {config_path()} names: {error}") from error
    if done.returncode != 0:
        return {}  # it has none
    found = json.loads(done.stdout)
    if found.get("Username") == "<token>":
        return {"identitytoken": found.get("Secret", "")}
    return {"username": found.get("Username", ""), "password": found.get("Secret", "")}


def remember(registry: str, username: str, password: str, identity_token: str) -> Path:
    """Write credentials into the file, which nobody else may read."""
    config = _read()
    secret = "" if identity_token else password
    entry = {"auth": base64.b64encode(f"{username}:{secret}".encode()).decode()}
    if identity_token:
        entry["identitytoken"] = identity_token
    config.setdefault("auths", {})[registry] = entry
    return _write(config)


def forget(registry: str) -> bool:
    """Remove credentials from the file; return whether there were any."""
    config = _read()
    if (config.get("auths") or {}).pop(registry, None) is None:
        return False
    _write(config)
    return True


def _write(config: dict[str, Any]) -> Path:
    path = config_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(config, file, indent="\t")
    os.replace(file.name, path)  # mode 0600, as temporary files have
    return path
