"""Who asks a registry: what clients send in ``X-Registry-Auth``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain_engine.content.reference import DEFAULT_DOMAIN


class Credentials(msgspec.Struct, frozen=True):
    """A user of a registry; empty: nobody in particular.

    Attributes:
        username, password: of basic authentication, or for a token server.
        identitytoken: a refresh token of OAuth2, instead of the password.
        registrytoken: a bearer token, sent as it is.
    """

    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def basic(self) -> str:
        """Return the header of basic authentication; empty when there is no user."""
        if not self.username:
            return ""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


def parse_credentials(document: object) -> Credentials:
    """Return the credentials of an ``AuthConfig`` of the API.

    Raises:
        InvalidArgument: it is none.
    """
    if not isinstance(document, Mapping):
        raise InvalidArgument("credentials of a registry have to be a JSON object")
    pair = str(document.get("auth") or "")
    found = {
        name: str(document.get(name) or "")
        for name in ("username", "password", "identitytoken", "registrytoken")
    }
    if pair and not found["username"]:
        try:
            text = base64.b64decode(pair).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidArgument(f"credentials of a registry: bad auth: {error}") from error
        found["username"], _, found["password"] = text.partition(":")
    return Credentials(**found)


def registry_domain(address: str) -> str:
    """Return the domain of a ``serveraddress``, which may be a URL; Docker Hub's when empty."""
    host = address.partition("://")[2] or address
    host = host.partition("/")[0]
    return DEFAULT_DOMAIN if host in ("", "index.docker.io", DEFAULT_DOMAIN) else host


def decode_header(text: str) -> Credentials:
    """Return the credentials of an ``X-Registry-Auth`` header; empty ones for none.

    Raises:
        InvalidArgument: it is not URL-safe base64 of a JSON object.
    """
    if not text:
        return Credentials()
    try:
        document = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidArgument(f"X-Registry-Auth: {error}") from error
    return parse_credentials(document)
