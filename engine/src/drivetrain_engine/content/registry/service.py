"""Images to and from registries: one service for everything that is asked of them.

What talks to registries is imported when it is first needed: most daemons never do.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from drivetrain.errors import InvalidArgument, NotFound
from drivetrain_engine.content import views
from drivetrain_engine.content.building import Builder
from drivetrain_engine.content.model import Json
from drivetrain_engine.content.records import Records
from drivetrain_engine.content.reference import (
    DEFAULT_DOMAIN,
    Reference,
    parse_reference,
    short_id,
)
from drivetrain_engine.content.registry.credentials import Credentials
from drivetrain_engine.content.registry.settings import RegistrySettings

if TYPE_CHECKING:
    from drivetrain_engine.content.registry.pulling import Manifest

Progress = Generator[Json, None, None]
_NOBODY = Credentials()


class Registries:
    """Pulls and pushes. Thread-safe.

    Args:
        builder: adds what is pulled to the store.
        records: the images.
        settings: where registries are; may be replaced.
    """

    def __init__(
        self, builder: Builder, records: Records, settings: RegistrySettings | None = None
    ) -> None:
        self._builder = builder
        self._records = records
        self.settings = settings or RegistrySettings()

    def pull(self, name: str, platform: str = "", user: Credentials = _NOBODY) -> Progress:
        """Bring an image; without a tag, all tags of the repository.

        Args:
            name: with a tag or digest.
            platform: such as ``linux/arm64``; this host's when empty.
            user: who asks.

        Yields:
            The API's progress documents.

        Raises:
            NotFound, InvalidArgument, Unavailable: of name, registry or content.
        """
        from drivetrain_engine.content.registry.client import connect
        from drivetrain_engine.content.registry.pulling import find_manifest

        reference = parse_reference(name)
        registries = [*connect(reference.domain, user, self.settings)]
        wanted = [reference]
        if not reference.tag and not reference.digest:
            tags = registries[-1].tags(reference.path)
            wanted = [Reference(reference.domain, reference.path, tag) for tag in tags]
        for one in wanted:
            yield from self._pull(find_manifest(registries, one, platform), one)

    def _pull(self, manifest: Manifest, reference: Reference) -> Progress:
        from drivetrain_engine.content.registry.pulling import Pull

        path = reference.path if reference.domain == DEFAULT_DOMAIN else reference.repository
        yield {"status": f"Pulling from {path}", "id": reference.digest or reference.tag}
        with self._records.layout.staging() as staging:
            pull = Pull(manifest, reference, staging, self._records.layer, self.settings)
            incoming = yield from pull.run()
            new = self._builder.keep_pulled(incoming)
        for layer in incoming.layers:
            yield {"status": "Pull complete", "progressDetail": {}, "id": short_id(layer.digest)}
        yield {"status": f"Digest: {manifest.digest}"}
        what = "Downloaded newer image for" if new else "Image is up to date for"
        yield {"status": f"Status: {what} {reference.familiar}"}

    def push(self, name: str, user: Credentials = _NOBODY) -> Progress:
        """Send an image to the registry of its name; without a tag, all tags of the repository.

        Yields:
            The API's progress documents.

        Raises:
            NotFound: no image has the name.
            PermissionDenied, Unavailable: of the registry.
        """
        from drivetrain_engine.content.registry.client import connect
        from drivetrain_engine.content.registry.pushing import push

        reference = parse_reference(name)
        if reference.digest:
            raise InvalidArgument("cannot push a digest reference")
        names = [str(reference)] if reference.tag else [*self._records.names(reference.repository)]
        chosen = {full: record for full in names if (record := self._records.by_name(full))}
        if not chosen:
            raise NotFound(
                f"An image does not exist locally with the tag: {reference.familiar_repository}"
            )
        (registry,) = connect(reference.domain, user, self.settings, pushing=True)
        yield {"status": f"The push refers to repository [{reference.repository}]"}
        for full, record in chosen.items():
            target = parse_reference(full)
            yield from push(registry, self._records.layout, record, target, self.settings)
            with self._records.changing():
                self._records.emit("push", target.familiar, name=target.familiar_repository)

    def login(self, domain: str, user: Credentials) -> None:
        """Find out whether a registry takes a user.

        Raises:
            PermissionDenied: it does not.
            Unavailable: it does not answer.
        """
        from drivetrain_engine.content.registry.client import connect

        (registry,) = connect(domain, user, self.settings, pushing=True)
        registry.check()

    def inspect(self, name: str, user: Credentials = _NOBODY) -> Json:
        """Return ``DistributionInspect``: what a registry says of a name.

        Raises:
            NotFound, Unavailable: of the registry.
        """
        from drivetrain_engine.content.registry.client import connect

        reference = parse_reference(name).tagged()
        (registry,) = connect(reference.domain, user, self.settings, pushing=True)
        wanted = reference.digest or reference.tag
        data, kind = registry.manifest(reference.path, wanted, reference.familiar)
        return views.distribution(data, kind)
