"""Pulling: from a name to an image that can be kept, every digest compared."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import urllib3

from drivetrain.errors import EngineError, InvalidArgument, NotFound, PermissionDenied, Unavailable
from drivetrain_engine.content.incoming import Incoming, decode, diff_ids_of
from drivetrain_engine.content.layout import Descriptor, digest_of, is_digest
from drivetrain_engine.content.model import Json, Layer, parse_platform
from drivetrain_engine.content.reference import Reference, short_id
from drivetrain_engine.content.registry.client import MANIFESTS, Registry
from drivetrain_engine.content.registry.settings import RegistrySettings
from drivetrain_engine.content.staging import Staged, Staging

_INDEXES = frozenset(kind for kind in MANIFESTS if "index" in kind or "list" in kind)
#: Seconds between two reports of one layer's progress.
_REPORT = 0.2

#: Tells of a layer that the store has: how large it is inflated, and its diff id.
Known = Callable[[str], tuple[int, str] | None]


class Manifest(msgspec.Struct, frozen=True):
    """A manifest of one image, checked.

    Attributes:
        registry: that has it.
        data: its bytes.
        descriptor: type, digest and size of it.
        content: decoded.
        digest: of what the name led to: the manifest, or the index that it is in.
    """

    registry: Registry
    data: bytes
    descriptor: Descriptor
    content: Json
    digest: str


def find_manifest(
    registries: Generator[Registry] | Sequence[Registry], reference: Reference, platform: str
) -> Manifest:
    """Return the manifest that a name leads to, from the first registry that has it.

    Args:
        registries: mirrors first.
        reference: with tag or digest.
        platform: such as ``linux/arm64``; this host's when empty.

    Raises:
        NotFound: none has it, or none for the platform; or nobody may know.
        InvalidArgument: it is not what its digest says, or of a kind that nobody makes any more.
    """
    failure: EngineError | None = None
    for registry in registries:
        try:
            return _manifest(registry, reference, platform)
        except PermissionDenied as error:
            failure = NotFound(
                f"pull access denied for {reference.familiar_repository}, repository does not exist"
                f" or may require a login: {error}"
            )
        except EngineError as error:
            failure = error
    assert failure is not None
    raise failure


def _manifest(registry: Registry, reference: Reference, platform: str) -> Manifest:
    wanted = reference.digest or reference.tag
    data, kind = registry.manifest(reference.path, wanted, reference.familiar)
    digest = digest_of(data)
    if reference.digest and digest != reference.digest:
        raise InvalidArgument(f"{reference.familiar}: the registry sent content of {digest}")
    content = _json(data, digest)
    kind = str(content.get("mediaType") or kind)
    named = digest
    for _ in range(3):
        if kind not in _INDEXES:
            break
        chosen = _choose(content, platform, reference)
        digest = str(chosen.get("digest"))
        data, kind = registry.manifest(reference.path, digest, f"{reference.familiar} ({digest})")
        if digest_of(data) != digest:
            raise InvalidArgument(f"{reference.familiar}: manifest {digest} is damaged")
        content = _json(data, digest)
        kind = str(content.get("mediaType") or kind)
    if kind not in MANIFESTS or kind in _INDEXES:
        raise InvalidArgument(
            f"{reference.familiar}: {kind or 'content without a type'} is no image that this engine"
            " understands"
        )
    descriptor = {"mediaType": kind, "digest": digest, "size": len(data)}
    return Manifest(registry, data, descriptor, content, named)


def _json(data: bytes, name: str) -> Json:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument(f"manifest {name}: {error}") from error


def _choose(index: Json, platform: str, reference: Reference) -> Descriptor:
    system, architecture, variant = parse_platform(platform)
    fitting = []
    for item in index.get("manifests") or ():
        its = item.get("platform") or {}
        if (its.get("os"), its.get("architecture")) == (system, architecture):
            fitting.append(item)
    same = [item for item in fitting if item["platform"].get("variant", "") == variant]
    if not fitting or (variant and not same):
        wanted = "/".join(part for part in (system, architecture, variant) if part)
        raise NotFound(f"no matching manifest for {wanted} in {reference.familiar}")
    return dict((same or fitting)[0])


class Pull:
    """One image on its way.

    Args:
        manifest: what is pulled.
        reference: by which name.
        staging: where its files go.
        known: of layers that need not come.
        settings: how many at once.
    """

    def __init__(
        self,
        manifest: Manifest,
        reference: Reference,
        staging: Staging,
        known: Known,
        settings: RegistrySettings,
    ) -> None:
        self._manifest = manifest
        self._reference = reference
        self._staging = staging
        self._known = known
        self._settings = settings
        self._events: queue.SimpleQueue[Json | None] = queue.SimpleQueue()
        self._cancelled = threading.Event()

    def run(self) -> Generator[Json, None, Incoming]:
        """Yield the API's progress documents; return the image.

        Raises:
            EngineError: of the registry, or content that is not what its digest says.
        """
        content, where = self._manifest.content, self._reference.familiar
        descriptors = content.get("layers") or []
        config_descriptor = content.get("config") or {}
        digests = [str(item.get("digest")) for item in (config_descriptor, *descriptors)]
        if not all(map(is_digest, digests)):
            raise InvalidArgument(f"{where}: its manifest has digests that are no SHA-256")
        config = self._fetch(digests[0])
        diff_ids = diff_ids_of(decode(config, digests[0], dict), digests[0])
        if len(diff_ids) != len(descriptors):
            raise InvalidArgument(
                f"{where}: the config has {len(diff_ids)} layers, the manifest {len(descriptors)}"
            )
        staged: dict[str, Staged] = {}
        sizes: dict[str, int] = {}
        for digest, diff_id in zip(digests[1:], diff_ids, strict=True):
            found = self._known(digest)
            if found is not None and found[1] == diff_id:
                sizes[digest] = found[0]
                yield _event("Already exists", digest)
        missing = {
            digest: (diff_id, int(item.get("size") or 0))
            for digest, diff_id, item in zip(digests[1:], diff_ids, descriptors, strict=True)
            if digest not in sizes
        }
        yield from self._layers(missing, staged)
        layers = tuple(
            Layer(item, sizes[digest] if digest in sizes else staged[digest].diff_size)
            for item, digest in zip(descriptors, digests[1:], strict=True)
        )
        manifest = self._staging.from_bytes(self._manifest.data)
        files = (config, manifest, *staged.values())
        names = (self._reference,)
        return Incoming(config, manifest, self._manifest.descriptor, layers, files, names)

    def _layers(
        self, missing: dict[str, tuple[str, int]], staged: dict[str, Staged]
    ) -> Generator[Json]:
        """Fetch layers, several at once, and yield how it goes."""
        for digest in missing:
            yield _event("Pulling fs layer", digest)

        def fetch(digest: str, diff_id: str, size: int) -> None:
            try:
                staged[digest] = self._layer(digest, diff_id, size)
            finally:
                self._events.put(None)

        with ThreadPoolExecutor(self._settings.max_downloads, "pull") as pool:
            futures = [pool.submit(fetch, digest, *rest) for digest, rest in missing.items()]
            try:
                ended = 0
                while ended < len(futures):
                    event = self._events.get()
                    if event is None:
                        ended += 1
                    else:
                        yield event
                    if failed := [one for one in futures if one.done() and one.exception()]:
                        failed[0].result()
            finally:
                self._cancelled.set()
                for future in futures:
                    future.cancel()
        for future in futures:
            future.result()

    def _layer(self, digest: str, diff_id: str, size: int) -> Staged:
        staged = self._fetch(digest, size)
        if staged.diff_id != diff_id:
            raise InvalidArgument(
                f"{self._reference.familiar}: layer {digest} holds {staged.diff_id}, its config"
                f" says {diff_id}"
            )
        self._events.put(_event("Download complete", digest))
        return staged

    def _fetch(self, digest: str, size: int = 0) -> Staged:
        """Take a blob in, from the beginning when the connection breaks."""
        for attempt in range(1, self._settings.attempts + 1):
            try:
                staged = self._attempt(digest, size)
                break
            except (urllib3.exceptions.HTTPError, Unavailable) as error:
                if attempt == self._settings.attempts or self._cancelled.is_set():
                    raise Unavailable(f"blob {digest}: {error}") from error
                self._events.put(_event(f"Retrying in {attempt} second(s)", digest))
                self._cancelled.wait(attempt)
        if staged.digest != digest:
            raise InvalidArgument(
                f"{self._reference.familiar}: the registry sent content of {staged.digest} for"
                f" {digest}"
            )
        return staged

    def _attempt(self, digest: str, size: int) -> Staged:
        answer = self._manifest.registry.blob(self._reference.path, digest)
        done, told = 0, 0.0

        def read(amount: int) -> bytes:
            nonlocal done, told
            if self._cancelled.is_set():
                raise Unavailable("the pull was given up")
            data = answer.read(amount, decode_content=False)
            done += len(data)
            if size and data and time.monotonic() - told > _REPORT:
                told = time.monotonic()
                detail = {"current": done, "total": size}
                self._events.put(_event("Downloading", digest, detail))
            return data

        try:
            return self._staging.stream(read, digest)
        finally:
            answer.release_conn()


def _event(status: str, digest: str, detail: Json | None = None) -> Json:
    document: Json = {"status": status, "progressDetail": detail or {}, "id": short_id(digest)}
    return document
