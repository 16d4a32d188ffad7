"""Pushing: blobs that a registry lacks, then the manifest."""

from __future__ import annotations

import queue
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

from drivetrain_engine.content.layout import Layout
from drivetrain_engine.content.model import Json, Record
from drivetrain_engine.content.reference import Reference, short_id
from drivetrain_engine.content.registry.client import Registry
from drivetrain_engine.content.registry.settings import RegistrySettings


def push(
    registry: Registry,
    layout: Layout,
    record: Record,
    reference: Reference,
    settings: RegistrySettings,
) -> Generator[Json]:
    """Send one image, as it is stored, and yield the API's progress documents.

    Raises:
        EngineError: of the registry, or of the store.
    """
    blobs = list(dict.fromkeys((*(layer.digest for layer in record.layers), record.image.id)))
    for layer in record.layers:
        yield _event("Preparing", layer.digest)
    news: queue.SimpleQueue[Json] = queue.SimpleQueue()

    def send(digest: str) -> None:
        if registry.has_blob(reference.path, digest):
            news.put(_event("Layer already exists", digest))
            return
        news.put(_event("Pushing", digest))
        with layout.open(digest) as file:
            size = file.seek(0, 2)
            registry.upload(reference.path, digest, size, file)
        news.put(_event("Pushed", digest))

    with ThreadPoolExecutor(settings.max_uploads, "push") as pool:
        for future in [pool.submit(send, digest) for digest in blobs]:
            future.result()
            while not news.empty():
                event = news.get()
                if event["id"] != short_id(record.image.id):
                    yield event
    digest, size = str(record.descriptor["digest"]), int(record.descriptor["size"])
    data = layout.read(digest)
    registry.put_manifest(reference.path, reference.tag, data, str(record.descriptor["mediaType"]))
    yield {"status": f"{reference.tag}: digest: {digest} size: {size}"}
    yield {"progressDetail": {}, "aux": {"Tag": reference.tag, "Digest": digest, "Size": size}}


def _event(status: str, digest: str) -> Json:
    return {"status": status, "progressDetail": {}, "id": short_id(digest)}
