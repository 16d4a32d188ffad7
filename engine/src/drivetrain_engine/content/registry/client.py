"""Talking to one registry: the distribution API and its ways to authenticate."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, cast
from urllib.parse import urljoin, urlsplit

import msgspec
import urllib3

from drivetrain.errors import (
    EngineError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from drivetrain_engine.content.registry.credentials import Credentials
from drivetrain_engine.content.registry.endpoints import Endpoint, endpoints
from drivetrain_engine.content.registry.settings import RegistrySettings

MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LARGEST_MANIFEST = 4 << 20
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_TOKENS = "engine"


class Registry:
    """A registry that has answered; for one image, in one operation. Thread-safe.

    Args:
        endpoint: where it is.
        pool: connections to it.
        credentials: who asks.
    """

    def __init__(
        self, endpoint: Endpoint, pool: urllib3.PoolManager, credentials: Credentials
    ) -> None:
        self.domain = endpoint.domain
        self._url = endpoint.url
        self._pool = pool
        self._credentials = credentials
        self._lock = threading.Lock()
        self._authorization = ""
        if credentials.registrytoken:
            self._authorization = f"Bearer {credentials.registrytoken}"

    # Requests

    def _request(
        self,
        method: str,
        path: str,
        actions: str = "pull",
        *,
        headers: Mapping[str, str] | None = None,
        body: IO[bytes] | bytes | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Ask, once more with authentication if need be; the body of the answer is not read.

        Args:
            method: of HTTP.
            path: below the registry, or a whole URL that it gave.
            actions: what a token has to allow: ``pull`` or ``pull,push``.
            headers: further ones.
            body: bytes, or a file that is sent from its beginning.

        Raises:
            Unavailable: no answer.
        """
        url = urljoin(self._url + "/", path)
        own = urlsplit(url).netloc == urlsplit(self._url).netloc
        for attempt in (1, 2):
            known = self._authorization
            sent = dict(headers or {}) | ({"Authorization": known} if known and own else {})
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            try:
                answer = self._pool.request(
                    method, url, headers=sent, body=body, preload_content=False
                )
            except urllib3.exceptions.HTTPError as error:
                raise Unavailable(f"{method} {url}: {_reason(error)}") from error
            if answer.status != 401 or attempt == 2:
                return answer
            challenge = answer.headers.get("WWW-Authenticate", "")
            answer.drain_conn()
            self._authenticate(challenge, known, path, actions)
        raise AssertionError("unreachable")

    def _authenticate(self, challenge: str, known: str, path: str, actions: str) -> None:
        with self._lock:
            if self._authorization != known:
                return  # another thread did
            kind, _, rest = challenge.partition(" ")
            if kind.lower() == "bearer":
                self._authorization = "Bearer " + self._token(
                    dict(_CHALLENGE.findall(rest)), path, actions
                )
            elif kind.lower() == "basic":
                self._authorization = self._credentials.basic()

    def _token(self, challenge: Mapping[str, str], path: str, actions: str) -> str:
        """Get a token from the server that a registry names.

        https://distribution.github.io/distribution/spec/auth/token/
        """
        realm = challenge.get("realm", "")
        fields = {"service": challenge.get("service", ""), "scope": challenge.get("scope", "")}
        match = re.match(r"v2/(.+)/(?:manifests|blobs|tags)/", path)
        if match:
            fields["scope"] = f"repository:{match[1]}:{actions}"
        fields = {name: text for name, text in fields.items() if text}
        user = self._credentials
        try:
            if user.identitytoken:
                grant = {"grant_type": "refresh_token", "refresh_token": user.identitytoken}
                answer = self._pool.request(
                    "POST", realm, fields=fields | grant | {"client_id": _TOKENS},
                    encode_multipart=False,
                )  # fmt: skip
            else:
                basic = user.basic()
                headers = {"Authorization": basic} if basic else {}
                answer = self._pool.request("GET", realm, fields=fields, headers=headers)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise Unavailable(f"cannot get a token from {realm}: {_reason(error)}") from error
        if answer.status != 200:
            raise _refusal(answer.status, answer.data, f"token of {realm}")
        document = _decode(answer.data, realm)
        return str(document.get("token") or document.get("access_token") or "")

    def _expect(
        self, answer: urllib3.BaseHTTPResponse, what: str, *statuses: int
    ) -> urllib3.BaseHTTPResponse:
        if answer.status in statuses:
            return answer
        raise _refusal(answer.status, answer.read(_LARGEST_MANIFEST) or b"", what)

    # The API

    def check(self) -> None:
        """Find out whether the registry takes the credentials.

        Raises:
            PermissionDenied: it does not.
        """
        answer = self._request("GET", "v2/")
        self._expect(answer, f"login to {self.domain}", 200).drain_conn()

    def manifest(self, repository: str, reference: str, name: str) -> tuple[bytes, str]:
        """Return a manifest or index, and its media type.

        Args:
            repository: the path of the name.
            reference: tag or digest.
            name: as users write it, for messages.

        Raises:
            NotFound: there is none, or nobody may know.
        """
        accepted = {"Accept": ", ".join(MANIFESTS)}
        answer = self._request("GET", f"v2/{repository}/manifests/{reference}", headers=accepted)
        self._expect(answer, f"manifest for {name}", 200)
        data = answer.read(_LARGEST_MANIFEST)
        answer.release_conn()
        return data, answer.headers.get("Content-Type", "").partition(";")[0].strip()

    def tags(self, repository: str) -> list[str]:
        """Return all tags of a repository."""
        found: list[str] = []
        path = f"v2/{repository}/tags/list"
        while path:
            answer = self._expect(self._request("GET", path), f"tags of {repository}", 200)
            found += _decode(answer.read(), path).get("tags") or []
            following = re.match(r"<([^>]+)>;\s*rel=\"?next", answer.headers.get("Link", ""))
            path = following[1] if following else ""
        return found

    def blob(self, repository: str, digest: str) -> urllib3.BaseHTTPResponse:
        """Return a blob, to be read and then released."""
        answer = self._request("GET", f"v2/{repository}/blobs/{digest}")
        return self._expect(answer, f"blob {digest} of {repository}", 200)

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the registry has a blob in this repository."""
        answer = self._request("HEAD", f"v2/{repository}/blobs/{digest}", "pull,push")
        answer.drain_conn()
        if answer.status == 404:
            return False
        self._expect(answer, f"blob {digest} of {repository}", 200)
        return True

    def upload(self, repository: str, digest: str, size: int, file: IO[bytes]) -> None:
        """Send a blob."""
        what = f"push of {repository}"
        answer = self._request("POST", f"v2/{repository}/blobs/uploads/", "pull,push")
        self._expect(answer, what, 202).drain_conn()
        place = urljoin(self._url + "/", answer.headers["Location"])
        place += ("&" if urlsplit(place).query else "?") + f"digest={digest}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        answer = self._request("PUT", place, "pull,push", headers=headers, body=file)
        self._expect(answer, what, 201).drain_conn()

    def put_manifest(self, repository: str, tag: str, data: bytes, media_type: str) -> None:
        """Give a tag to a manifest whose blobs are there."""
        answer = self._request(
            "PUT", f"v2/{repository}/manifests/{tag}", "pull,push",
            headers={"Content-Type": media_type}, body=data,
        )  # fmt: skip
        self._expect(answer, f"push of {repository}:{tag}", 201).drain_conn()


def connect(
    domain: str, credentials: Credentials, settings: RegistrySettings, *, pushing: bool = False
) -> Iterator[Registry]:
    """Yield the registries that answer for a domain, mirrors first.

    Raises:
        Unavailable: none does.
    """
    failures: list[str] = []
    found = False
    places: Iterable[Endpoint] = endpoints(domain, settings, pushing=pushing)
    for endpoint in places:
        pool = endpoint.pool(settings)
        try:
            answer = pool.request("GET", f"{endpoint.url}/v2/")
        except urllib3.exceptions.HTTPError as error:
            failures.append(f"{endpoint.url}: {_reason(error)}")
            continue
        if answer.status in (200, 401):
            found = True
            # What is known of a user is for the registry of that name, and not for its mirrors.
            mine = credentials if endpoint.domain == domain else Credentials()
            yield Registry(endpoint, pool, mine)
            if endpoint.domain == domain:
                return
        else:
            failures.append(f"{endpoint.url}: HTTP status {answer.status}: not a registry?")
    if not found:
        raise Unavailable(f"cannot reach the registry {domain}: {'; '.join(failures)}")


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        error = error.reason
    text = str(error)
    if isinstance(error, urllib3.exceptions.SSLError):
        text += (
            " (put the certificate of its authority into certs.d/HOST:PORT/ca.crt beside the"
            " daemon's configuration, or name the host in insecure-registries)"
        )
    return re.sub(r"^\w+\(host='[^']*', port=\d+\): ", "", text)


def _decode(data: bytes, where: str) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", msgspec.json.decode(data, type=dict))
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Unavailable(f"{where} does not answer as a registry does: {error}") from error


def _refusal(status: int, data: bytes, what: str) -> EngineError:
    """Return the error for an answer that is not what was wanted."""
    texts = []
    try:
        for entry in msgspec.json.decode(data, type=dict).get("errors") or ():
            code = str(entry.get("code") or "").lower().replace("_", " ")
            texts.append(f"{code}: {entry.get('message') or ''}".strip(": "))
    except (msgspec.DecodeError, msgspec.ValidationError, AttributeError):
        texts.append(data[:200].decode(errors="replace").strip())
    said = "; ".join(text for text in texts if text) or f"HTTP status {status}"
    if status == 404:
        return NotFound(f"{what} not found: {said}")
    if status in (401, 403):
        return PermissionDenied(f"{what}: {said}: it may need a login, or another one")
    if status == 429 or status >= 500:
        return Unavailable(f"{what}: {said}")
    return InvalidArgument(f"{what}: {said}")
