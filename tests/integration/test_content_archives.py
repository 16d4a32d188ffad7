"""Archives of images: taken in with every digest compared, and written again."""

import io
import json
import tarfile

import pytest
from tests.images import COMPRESSORS, Store, config, digest, docker_archive, tar

from drivetrain.errors import InvalidArgument, NotFound

BASE = tar({"etc/hostname": b"base\n", "big": bytes(range(256)) * 4096})
TOP = tar({"etc/top": b"top\n"})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "images")


def oci_archive(
    name="docker.io/library/app:1", layer=BASE, stored=None, kind="+gzip", nested=False
):
    stored = COMPRESSORS["gzip"](layer) if stored is None else stored
    image = config(layer)
    blobs = {digest(stored): stored, digest(image): image}
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(image),
                "size": len(image),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": digest(stored),
                    "size": len(stored),
                }
            ],
        }
    ).encode()
    blobs[digest(manifest)] = manifest
    descriptor = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest(manifest),
        "size": len(manifest),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    if nested:
        other = {
            **descriptor,
            "digest": digest(b"none"),
            "platform": {"os": "x", "architecture": "y"},
        }
        index = json.dumps({"schemaVersion": 2, "manifests": [other, descriptor]}).encode()
        blobs[digest(index)] = index
        descriptor = {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": digest(index),
            "size": len(index),
        }
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
    files = {"blobs/sha256/" + key[7:]: data for key, data in blobs.items()}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    return tar(files)


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_layers_of_every_compression_are_loaded_and_read_back(store, compression):
    stored = {"a": COMPRESSORS[compression](BASE), "b": TOP}
    lines = store.load(docker_archive({"a": BASE, "b": TOP}, stored=stored))
    assert lines == ["Loaded image: app:1"]
    image = store.images.get("app:1")
    assert image.diff_ids == (digest(BASE), digest(TOP))
    assert image.size == len(BASE) + len(TOP)
    assert (store.content("app:1", 0), store.content("app:1", 1)) == (BASE, TOP)


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_an_archive_may_be_compressed_as_a_whole(store, compression):
    data = COMPRESSORS[compression](docker_archive({"a": BASE}))
    assert store.load(data) == ["Loaded image: app:1"]
    assert store.content("app:1") == BASE


def test_gzip_of_several_members_is_one_layer(store):
    half = len(BASE) // 2
    stored = COMPRESSORS["gzip"](BASE[:half]) + COMPRESSORS["gzip"](BASE[half:])
    store.load(docker_archive({"a": BASE}, stored={"a": stored}))
    assert store.content("app:1") == BASE


def test_a_layer_larger_than_all_buffers_is_loaded(store):
    layer = tar({"big": bytes(40 << 20)})
    for name in ("plain", "gzip"):
        store.load(docker_archive({"a": layer}, stored={"a": COMPRESSORS[name](layer)}))
        assert store.content("app:1") == layer
        store.images.remove("app:1")


def test_an_oci_archive_keeps_its_manifest_and_its_blobs(store):
    assert store.load(oci_archive()) == ["Loaded image: app:1"]
    shown = store.images.inspect("app:1")
    assert shown["Descriptor"]["digest"][7:] in store.blobs()
    assert store.images.get("app@" + shown["Descriptor"]["digest"]).id == shown["Id"]
    assert store.content("app:1") == BASE


def test_of_an_index_the_manifest_for_this_host_is_taken(store):
    assert store.load(oci_archive(nested=True)) == ["Loaded image: app:1"]


def test_a_ref_name_that_is_only_a_tag_gives_no_name(store):
    (line,) = store.load(oci_archive(name="latest"))
    assert line == "Loaded image ID: " + store.images.list()[0].id


def test_layers_that_are_links_to_other_entries_are_found(store):
    image = config(BASE, BASE)
    name = digest(image)[7:] + ".json"
    manifest = [{"Config": name, "RepoTags": ["app:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    store.load(
        tar(
            {
                "a/layer.tar": BASE,
                "b/layer.tar": "../a/layer.tar",
                name: image,
                "manifest.json": json.dumps(manifest).encode(),
            }
        )
    )
    assert store.content("app:1", 1) == BASE


def test_an_archive_of_the_time_before_manifests_is_loaded(store):
    files = {
        "one/layer.tar": BASE,
        "one/json": json.dumps({"id": "one", "config": {}}).encode(),
        "two/layer.tar": TOP,
        "two/json": json.dumps(
            {"id": "two", "parent": "one", "config": {"Cmd": ["x"]}, "os": "linux"}
        ).encode(),
        "repositories": json.dumps({"old/app": {"v1": "two"}}).encode(),
    }
    assert store.load(tar(files)) == ["Loaded image: old/app:v1"]
    image = store.images.get("old/app:v1")
    assert image.settings == {"Cmd": ["x"]}
    assert store.content("old/app:v1", 0) == BASE


def test_loading_moves_a_name_and_says_so(store):
    store.load(docker_archive({"a": BASE}))
    old = store.images.get("app:1").id
    lines = store.load(docker_archive({"a": TOP}))
    assert lines == [
        f"The image app:1 already exists, renaming the old one with ID {old} to empty string",
        "Loaded image: app:1",
    ]
    assert store.images.get(old).tags == ()


def test_loading_the_same_again_changes_nothing(store):
    store.load(docker_archive({"a": BASE}))
    before = store.blobs()
    store.load(docker_archive({"a": BASE}, stored={"a": COMPRESSORS["gzip"](BASE)}))
    assert store.blobs() == before
    assert len(store.images.list()) == 1


def damaged(data, needle, replacement):
    assert needle in data
    return data.replace(needle, replacement, 1)


SHORT_GZIP = COMPRESSORS["gzip"](BASE)[:-100]
BAD_ZSTD = COMPRESSORS["zstd"](BASE)[:-10]


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (b"nothing of the kind" * 100, "tar archive"),
        (b"", "tar archive"),
        (tar({"etc/passwd": b"x"}), "neither manifest.json nor index.json"),
        (tar({"manifest.json": b"{"}), "manifest.json: not usable JSON"),
        (tar({"manifest.json": b'{"a": 1}'}), "manifest.json: not usable JSON"),
        (tar({"manifest.json": b'[{"Config": "x.json"}]'}), "no entry x.json"),
        (tar({"../../etc/cron.d/x": b"x"}), "leads out of the archive"),
        (tar({"a": "../../etc/passwd", "manifest.json": b"[]"}), "leads out of the archive"),
        (docker_archive({"a": BASE})[:100_000], "a/layer.tar: the archive ends"),
        (docker_archive({"a": BASE}, stored={"a": TOP}), "invalid diffID for layer 0"),
        (docker_archive({"a": BASE}, stored={"a": SHORT_GZIP}), "a/layer.tar: corrupt gzip"),
        (docker_archive({"a": BASE}, stored={"a": BAD_ZSTD}), "a/layer.tar: corrupt zstd"),
        (docker_archive({"a": BASE}, image=config()), "layers length mismatch"),
        (docker_archive({"a": BASE}, image=b"{}"), "rootfs.diff_ids"),
        (docker_archive({"a": BASE}, tags=("Not A Name",)), "invalid reference format"),
        (damaged(oci_archive(), b"layer 0", b"layer 1"), "blobs/sha256/.*the content has"),
        (damaged(docker_archive({"a": BASE}), b"layer 0", b"layer 1"), "json: the content has"),
        (COMPRESSORS["gzip"](docker_archive({"a": BASE}))[:-500], "the archive: corrupt gzip"),
    ],
)
def test_a_bad_archive_is_refused_by_name_and_leaves_nothing(store, archive, reason):
    with pytest.raises(InvalidArgument, match=reason):
        store.load(archive)
    assert store.leftovers() == []
    assert store.blobs() == set()
    assert store.images.list() == []


def test_what_is_saved_can_be_loaded_and_has_both_forms(store, tmp_path):
    store.load(docker_archive({"a": BASE, "b": TOP}, tags=("app:1", "app:2", "other/x:3")))
    data = b"".join(store.images.save(["app", "other/x:3"]))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        manifest = json.load(archive.extractfile("manifest.json"))
        index = json.load(archive.extractfile("index.json"))
    assert {"oci-layout", "index.json", "manifest.json"} <= set(names)
    assert manifest[0]["RepoTags"] == ["app:1", "app:2", "other/x:3"]
    assert len(index["manifests"]) == 3
    again = Store(tmp_path / "again")
    assert len(again.load(data)) == 3
    assert again.images.get("app:2").id == store.images.get("app:1").id
    assert again.content("app:1", 1) == TOP


def test_an_image_saved_by_id_has_no_name(store):
    store.load(docker_archive({"a": BASE}))
    image = store.images.get("app:1")
    data = b"".join(store.images.save([image.id[7:19]]))
    store.images.remove("app:1")
    assert store.load(data) == [f"Loaded image ID: {image.id}"]


def test_an_image_removed_while_it_is_saved_is_saved_all_the_same(store, tmp_path):
    store.load(docker_archive({"a": BASE}))
    chunks = store.images.save(["app:1"])
    first = next(chunks)
    store.images.remove("app:1")
    assert Store(tmp_path / "again").load(first + b"".join(chunks)) == ["Loaded image: app:1"]
    assert store.leftovers() == []


def test_a_save_that_nobody_reads_leaves_nothing(store):
    store.load(docker_archive({"a": BASE}))
    chunks = store.images.save(["app:1"])
    next(chunks)
    chunks.close()
    store.images.save(["app:1"])
    assert store.leftovers() == []


def test_saving_what_does_not_exist_is_told(store):
    with pytest.raises(NotFound, match="No such image: nothing:latest"):
        store.images.save(["nothing"])


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_a_root_file_system_of_any_compression_is_imported(store, compression):
    data = COMPRESSORS[compression](BASE)
    image = store.images.import_tar(
        io.BytesIO(data), reference="root:1", changes=['CMD ["sh"]'], message="mine"
    )
    assert image.settings == {"Cmd": ["sh"]}
    assert image.tags == ("root:1",)
    assert store.content("root:1") == BASE
    (entry,) = store.images.history("root:1")
    assert (entry["Comment"], entry["Id"]) == ("mine", image.id)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"garbage" * 1000, "bad header"),
        (BASE[:70_000], "big: the archive ends in the middle"),
        (b"", "empty"),
        (COMPRESSORS["gzip"](BASE)[:-300], "root file system"),
    ],
)
def test_a_bad_root_file_system_is_refused_and_leaves_nothing(store, data, reason):
    with pytest.raises(InvalidArgument, match=reason):
        store.images.import_tar(io.BytesIO(data), reference="root:1")
    assert store.leftovers() == []
    assert store.blobs() == set()


def test_an_import_for_another_platform_says_so(store):
    image = store.images.import_tar(io.BytesIO(BASE), platform="linux/arm64/v8")
    shown = store.images.inspect(image.id)
    assert (shown["Os"], shown["Architecture"], shown["Variant"]) == ("linux", "arm64", "v8")
