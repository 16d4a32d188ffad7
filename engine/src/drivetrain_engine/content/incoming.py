"""Archives with images: which images they hold, with every digest compared.

Understood are what ``docker save`` writes (``manifest.json``, and ``repositories`` of the time
before it), and OCI layouts in a tar. Nothing here changes the store.
"""

from __future__ import annotations

import posixpath
from typing import Any

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain_engine.content.compression import Readable, layer_media_type
from drivetrain_engine.content.layout import MANIFEST_TYPE, Descriptor, is_digest
from drivetrain_engine.content.model import Json, Layer, host_platform, make_manifest
from drivetrain_engine.content.reference import Reference, parse_target
from drivetrain_engine.content.staging import Staged, Staging
from drivetrain_engine.content.tarstream import entries, entry_name

_MAX_JSON = 16 << 20
_INDEX_TYPES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
_MANIFEST_TYPES = frozenset({MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json"})
_MAX_LINKS = 8


class Incoming(msgspec.Struct):
    """An image of an archive, checked.

    Attributes:
        config: the bytes of the image config.
        manifest: the staged manifest.
        descriptor: of the manifest.
        layers: lowest first.
        files: everything that the image needs, staged.
        tags: names that the archive gives it.
    """

    config: Staged
    manifest: Staged
    descriptor: Descriptor
    layers: tuple[Layer, ...]
    files: tuple[Staged, ...]
    tags: tuple[Reference, ...]


class Archive:
    """The files of an archive by plain name, staged."""

    def __init__(self, stream: Readable, staging: Staging) -> None:
        self.staging = staging
        self.files: dict[str, Staged] = {}
        self._links: dict[str, str] = {}
        for name, member, read in entries(stream):
            if member.isreg():
                self.files[name] = staging.stream(read, name)
            elif member.issym() and member.linkname.startswith("/"):
                raise InvalidArgument(f"archive entry {name}: the link leads out of the archive")
            elif member.issym():
                folder = posixpath.dirname(name)
                self._links[name] = entry_name(posixpath.join(folder, member.linkname))
            elif member.islnk():
                self._links[name] = entry_name(member.linkname)

    def find(self, name: str) -> Staged | None:
        """Return a file, through links."""
        name = entry_name(name)
        for _ in range(_MAX_LINKS):
            if name in self.files:
                return self.files[name]
            if name not in self._links:
                break
            name = self._links[name]
        return None

    def file(self, name: str) -> Staged:
        """Return a file.

        Raises:
            InvalidArgument: the archive does not have it.
        """
        if not isinstance(name, str) or (staged := self.find(name)) is None:
            raise InvalidArgument(f"the archive has no entry {name}, which its index names")
        return staged

    def json(self, name: str, kind: type) -> Any:
        """Return the decoded content of a file that must be JSON of that kind.

        Raises:
            InvalidArgument: it is missing, too large or something else.
        """
        staged = self.file(name)
        return decode(staged, name, kind)

    def blob(self, descriptor: object) -> Staged:
        """Return the blob of a descriptor, its digest compared.

        Raises:
            InvalidArgument: it is missing or damaged.
        """
        digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
        if not is_digest(digest):
            raise InvalidArgument(f"the archive's index has no usable digest in {descriptor!r}")
        name = "blobs/sha256/" + str(digest)[7:]
        staged = self.file(name)
        if staged.digest != digest:
            raise InvalidArgument(
                f"archive entry {name}: the content has the digest {staged.digest}"
            )
        return staged


def decode(staged: Staged, name: str, kind: type) -> Any:
    """Decode a staged JSON file; see :meth:`Archive.json`."""
    if staged.size > _MAX_JSON:
        raise InvalidArgument(f"archive entry {name}: {staged.size} bytes are too much for JSON")
    try:
        return msgspec.json.decode(staged.read(), type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"archive entry {name}: not usable JSON: {error}") from error


def diff_ids_of(config: Json, name: str) -> tuple[str, ...]:
    """Return the layers' diff ids of an image config.

    Raises:
        InvalidArgument: it has none that are usable.
    """
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if found is None:
        found = []
    if not isinstance(rootfs, dict) or not isinstance(found, list):
        raise InvalidArgument(f"archive entry {name}: an image config has to have rootfs.diff_ids")
    if not all(is_digest(item) for item in found):
        raise InvalidArgument(f"archive entry {name}: rootfs.diff_ids are not SHA-256 digests")
    return tuple(found)


def _checked_layers(
    diff_ids: tuple[str, ...], staged: list[Staged], descriptors: list[Descriptor] | None
) -> tuple[Layer, ...]:
    if len(diff_ids) != len(staged):
        raise InvalidArgument(
            f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(staged)}"
        )
    layers = []
    for number, (diff_id, file) in enumerate(zip(diff_ids, staged, strict=True)):
        if file.diff_id != diff_id:
            raise InvalidArgument(
                f'invalid diffID for layer {number}: expected "{diff_id}", got "{file.diff_id}"'
            )
        descriptor = {
            "mediaType": layer_media_type(file.compression),
            "digest": file.digest,
            "size": file.size,
        }
        if descriptors is not None:
            descriptor = descriptors[number]
        layers.append(Layer(descriptor, file.diff_size))
    return tuple(layers)


def read_archive(stream: Readable, staging: Staging) -> list[Incoming]:
    """Take an archive in and return its images.

    Args:
        stream: the tar, inflated.
        staging: where its files go.

    Raises:
        InvalidArgument: it is not an archive of images, or a damaged one.
    """
    archive = Archive(stream, staging)
    if archive.find("manifest.json") is not None:
        return _from_docker(archive)
    if archive.find("index.json") is not None:
        return _from_oci(archive)
    if archive.find("repositories") is not None:
        from drivetrain_engine.content.legacy import read_legacy

        return [_assemble(archive, *parts) for parts in read_legacy(archive)]
    raise InvalidArgument(
        "not an archive of images: it has neither manifest.json nor index.json; "
        "a root file system is taken in by import"
    )


def _assemble(
    archive: Archive, config: Staged, layers: list[Staged], tags: list[str], name: str
) -> Incoming:
    """Return the image of a config and layers that come without an OCI manifest."""
    diff_ids = diff_ids_of(decode(config, name, dict), name)
    checked = _checked_layers(diff_ids, layers, None)
    manifest = archive.staging.from_bytes(make_manifest(config.read(), config.digest, checked))
    descriptor = {
        "mediaType": MANIFEST_TYPE,
        "digest": manifest.digest,
        "size": manifest.size,
    }
    references = tuple(_tag(text) for text in tags)
    return Incoming(config, manifest, descriptor, checked, (config, manifest, *layers), references)


def _tag(text: object) -> Reference:
    if not isinstance(text, str):
        raise InvalidArgument(f"the archive names an image {text!r}")
    return parse_target(text)


def _from_docker(archive: Archive) -> list[Incoming]:
    images = []
    for item in archive.json("manifest.json", list):
        if not isinstance(item, dict) or not isinstance(item.get("Layers") or [], list):
            raise InvalidArgument("archive entry manifest.json: a list of images is needed")
        name = str(item.get("Config"))
        config = archive.file(name)
        digest = posixpath.basename(name).removesuffix(".json")
        if is_digest("sha256:" + digest) and config.digest != "sha256:" + digest:
            raise InvalidArgument(
                f"archive entry {name}: the content has the digest {config.digest}"
            )
        layers = [archive.file(layer) for layer in item.get("Layers") or []]
        images.append(_assemble(archive, config, layers, item.get("RepoTags") or [], name))
    return images


def _from_oci(archive: Archive) -> list[Incoming]:
    index = archive.json("index.json", dict)
    found: dict[str, Incoming] = {}
    for descriptor in _manifests(index, "index.json"):
        tags = _oci_tags(descriptor)
        chosen = _choose(archive, descriptor, depth=0)
        if chosen is None:
            continue
        image = _oci_image(archive, chosen, tags)
        known = found.setdefault(image.manifest.digest, image)
        known.tags = tuple(dict.fromkeys((*known.tags, *image.tags)))
    if not found:
        system, architecture = host_platform()
        raise InvalidArgument(f"the archive has no image for {system}/{architecture}")
    return list(found.values())


def _manifests(index: Json, name: str) -> list[Descriptor]:
    found = index.get("manifests") or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InvalidArgument(f"archive entry {name}: manifests has to be a list of descriptors")
    return found


def _oci_tags(descriptor: Descriptor) -> tuple[Reference, ...]:
    """Return the name of an image in an index: containerd's full one, or ref.name."""
    annotations = descriptor.get("annotations") or {}
    name = annotations.get("io.containerd.image.name")
    reference = annotations.get("org.opencontainers.image.ref.name")
    if name:
        return (parse_target(name),)
    # a ref.name such as "latest" is only a tag, for which the archive gives no repository
    if reference and ("/" in reference or ":" in reference):
        return (parse_target(reference),)
    return ()


def _fits(descriptor: Descriptor) -> bool:
    wanted = descriptor.get("platform")
    if not isinstance(wanted, dict) or not wanted.get("architecture"):
        return True
    return (wanted.get("os"), wanted["architecture"]) == host_platform()


def _choose(archive: Archive, descriptor: Descriptor, depth: int) -> Descriptor | None:
    """Return the manifest for this host that the descriptor leads to."""
    kind = descriptor.get("mediaType", MANIFEST_TYPE)
    if kind in _MANIFEST_TYPES:
        return descriptor
    if kind not in _INDEX_TYPES or depth > 3:
        raise InvalidArgument(f"cannot load content of the type {kind}")
    blob = archive.blob(descriptor)
    index = decode(blob, blob.digest, dict)
    candidates = _manifests(index, blob.digest)
    usable = [item for item in candidates if _fits(item)]
    # an archive of one foreign platform is loaded, as Docker does; attestations never are
    for item in usable or [item for item in candidates if not _attestation(item)][:1]:
        if not _attestation(item) and (chosen := _choose(archive, item, depth + 1)) is not None:
            return chosen
    return None


def _attestation(descriptor: Descriptor) -> bool:
    annotations = descriptor.get("annotations") or {}
    return annotations.get("vnd.docker.reference.type") == "attestation-manifest"


def _oci_image(archive: Archive, descriptor: Descriptor, tags: tuple[Reference, ...]) -> Incoming:
    manifest = archive.blob(descriptor)
    content = decode(manifest, manifest.digest, dict)
    config = archive.blob(content.get("config"))
    descriptors = content.get("layers") or []
    if not isinstance(descriptors, list):
        raise InvalidArgument(f"manifest {manifest.digest}: layers has to be a list")
    layers = [archive.blob(item) for item in descriptors]
    diff_ids = diff_ids_of(decode(config, config.digest, dict), config.digest)
    plain = {
        "mediaType": descriptor.get("mediaType", MANIFEST_TYPE),
        "digest": manifest.digest,
        "size": manifest.size,
    }
    checked = _checked_layers(diff_ids, layers, descriptors)
    return Incoming(config, manifest, plain, checked, (config, manifest, *layers), tags)
