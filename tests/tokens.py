"""A server of tokens as registries name it: ``python -m tests.tokens FOLDER PORT``.

It has one user, signs with ``key.pem`` in FOLDER, and writes each query down in ``requests``.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.registry import ISSUER, PASSWORD, SERVICE, USER

FOLDER = Path(sys.argv[1])


def encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(scope: str) -> str:
    certificate = (FOLDER / "cert.pem").read_text().splitlines()
    header = {"alg": "RS256", "typ": "JWT", "x5c": ["".join(certificate[1:-1])]}
    access: list[dict[str, Any]] = []
    if scope:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        access.append({"type": kind, "name": name, "actions": actions.split(",")})
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": SERVICE, "sub": USER, "jti": str(now), "access": access,
        "iat": now - 10, "nbf": now - 10, "exp": now + 600,
    }  # fmt: skip
    parts = [encoded(json.dumps(part).encode()) for part in (header, claims)]
    signed = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", FOLDER / "key.pem"],
        input=b".".join(parts), check=True, capture_output=True,
    ).stdout  # fmt: skip
    return b".".join([*parts, encoded(signed)]).decode()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        query = urlsplit(self.path).query
        with (FOLDER / "requests").open("a") as file:
            file.write(query + "\n")
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        good = self.headers.get("Authorization") == f"Basic {pair}"
        scope = parse_qs(query).get("scope", [""])[0]
        body = json.dumps({"token": token(scope)} if good else {"errors": []}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
