"""The image store: names, removal by Docker's rules, pruning, lists, crashes."""

import io
import json
import subprocess
import threading

import pytest
from tests.images import COMPRESSORS, Store, digest, docker_archive, tar

from drivetrain.errors import Internal, InUse, InvalidArgument, NotFound

BASE = tar({"etc/hostname": b"base\n"})
TOP = tar({"etc/top": b"top\n"})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "images")


@pytest.fixture
def base(store):
    store.load(docker_archive({"a": BASE}, tags=("base:1",)))
    return store.images.get("base:1")


def commit(store, parent, name="", layer=TOP):
    chunks = iter([layer]) if layer is not None else None
    return store.images.commit(
        parent=parent, layer=chunks, config=parent.settings, comment="c", reference=name
    )


# finding


def test_an_image_is_found_by_name_id_and_the_beginning_of_its_id(store, base):
    repository = store.images.inspect("base:1")["RepoDigests"][0]
    for name in ("base:1", "docker.io/library/base:1", base.id, base.id[7:], base.id[7:13]):
        assert store.images.get(name).id == base.id
    assert store.images.get(base.id[:20]).id == base.id
    assert store.images.get(repository).id == base.id


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("base", "No such image: base:latest"),
        ("other:2", "No such image: other:2"),
        ("sha256:" + "0" * 64, "No such image: sha256:0000"),
        ("0" * 64, "No such image: 0000"),
        ("abcdef", "No such image: abcdef:latest"),
    ],
)
def test_an_image_that_does_not_exist_is_named(store, base, name, message):
    with pytest.raises(NotFound, match=message):
        store.images.get(name)


def test_a_name_wins_over_the_beginning_of_an_id(store, base):
    other = commit(store, base)
    store.images.tag(other.id, base.id[7:15])
    assert store.images.get(base.id[7:15]).id == other.id


# tagging and committing


def test_a_tag_moves_from_one_image_to_another(store, base):
    other = commit(store, base, "other:1")
    store.images.tag("other:1", "base:1")
    assert store.images.get("base:1").id == other.id
    assert store.images.get(base.id).tags == ()
    assert store.images.get(other.id).tags == ("base:1", "other:1")


def test_a_commit_has_the_parents_layers_and_one_more(store, base):
    image = commit(store, base, "new:1")
    assert image.parent == base.id
    assert image.diff_ids == (digest(BASE), digest(TOP))
    assert image.chain_ids[1] == digest(f"{digest(BASE)} {digest(TOP)}".encode())
    assert store.content("new:1", 1) == TOP
    newest, oldest = store.images.history("new:1")
    assert (newest["Id"], newest["Comment"], newest["Size"]) == (image.id, "c", len(TOP))
    assert (oldest["Id"], oldest["CreatedBy"]) == (base.id, "layer 0")


@pytest.mark.parametrize("layer", [None, bytes(1024)])
def test_a_commit_without_changes_has_no_further_layer(store, base, layer):
    image = commit(store, base, "same:1", layer)
    assert image.diff_ids == base.diff_ids
    assert image.config["history"][-1]["empty_layer"] is True
    assert store.images.history("same:1")[0]["Size"] == 0


def test_events_tell_what_happened(store, base):
    store.images.tag("base:1", "more:1")
    store.images.remove("more:1")
    assert ("load", "base:1") in store.told
    assert ("tag", "more:1") in store.told
    assert store.told[-1][0] == "untag"


def test_a_listener_may_use_the_store(store):
    pruned = []
    store.events.listeners.append(
        lambda event: event.action == "load" and pruned.append(store.images.prune({}))
    )
    archive = docker_archive({"a": BASE}, tags=("base:1",))
    worker = threading.Thread(target=store.load, args=(archive,), daemon=True)
    worker.start()
    worker.join(30)
    assert pruned == [{"ImagesDeleted": None, "SpaceReclaimed": 0}]


# removing


def test_removing_one_of_several_names_only_takes_the_name(store, base):
    store.images.tag("base:1", "base:2")
    assert store.images.remove("base:2") == [{"Untagged": "base:2"}]
    assert store.images.get("base:1").id == base.id


def test_removing_the_last_name_removes_image_and_blobs(store, base):
    assert store.images.remove("base:1") == [
        {"Untagged": "base:1"},
        {"Deleted": base.id},
        {"Deleted": base.chain_ids[0]},
    ]
    assert store.blobs() == set()


def test_removing_by_id_takes_the_only_name_too(store, base):
    outcome = store.images.remove(base.id[7:19])
    assert outcome[:2] == [{"Untagged": "base:1"}, {"Deleted": base.id}]


def test_removing_by_id_with_several_names_needs_force(store, base):
    store.images.tag("base:1", "other:1")
    with pytest.raises(InUse) as caught:
        store.images.remove(base.id)
    assert str(caught.value) == (
        f"conflict: unable to delete {base.id[7:19]} (must be forced) - "
        "image is referenced in multiple repositories"
    )
    assert store.images.get("other:1").tags == ("base:1", "other:1")
    assert {"Deleted": base.id} in store.images.remove(base.id, force=True)


def test_a_name_in_use_by_a_container_needs_force(store, base):
    store.images.users.append(lambda image: ["container " + "c" * 64 + " (exited)"])
    with pytest.raises(InUse) as caught:
        store.images.remove("base:1")
    assert str(caught.value) == (
        'conflict: unable to remove repository reference "base:1" (must force) - container '
        f"{'c' * 12} is using its referenced image {base.id[7:19]}"
    )
    assert {"Deleted": base.id} in store.images.remove("base:1", force=True)


def test_an_image_of_a_stopped_container_needs_force(store, base):
    store.images.users.append(lambda image: ["container " + "c" * 64 + " (exited)"])
    with pytest.raises(InUse, match=r"\(must be forced\) - image is being used by stopped"):
        store.images.remove(base.id)
    assert {"Deleted": base.id} in store.images.remove(base.id, force=True)


def test_an_image_of_a_running_container_cannot_be_forced(store, base):
    store.images.users.append(lambda image: ["container " + "c" * 64 + " (running)"])
    with pytest.raises(InUse, match=r"\(cannot be forced\) - image is being used by running"):
        store.images.remove(base.id, force=True)
    # by name, force takes the name and leaves the image
    assert store.images.remove("base:1", force=True) == [{"Untagged": "base:1"}]
    assert store.images.get(base.id).tags == ()


def test_an_image_with_children_cannot_be_removed(store, base):
    commit(store, base, "child:1")
    with pytest.raises(InUse, match=r"\(cannot be forced\) - image has dependent child images"):
        store.images.remove(base.id, force=True)


def test_removing_a_child_removes_its_nameless_parents_unless_told_not_to(store, base):
    commit(store, base, "child:1")
    store.images.remove("base:1")
    kept = store.images.remove("child:1", prune=False)
    assert {"Deleted": base.id} not in kept
    assert store.images.get(base.id).id == base.id
    commit(store, store.images.get(base.id), "child:1")
    assert {"Deleted": base.id} in store.images.remove("child:1")
    assert store.blobs() == set()


def test_blobs_that_another_image_needs_stay(store, base):
    store.load(docker_archive({"a": BASE, "b": TOP}, tags=("both:1",)))
    store.images.remove("base:1")
    assert store.content("both:1", 0) == BASE


# pruning


def test_pruning_removes_nameless_images_nobody_uses(store, base):
    loose = commit(store, base)
    report = store.images.prune({})
    assert {"Deleted": loose.id} in report["ImagesDeleted"]
    assert report["SpaceReclaimed"] > len(TOP)
    assert store.images.get("base:1").id == base.id


def test_pruning_everything_unused_spares_what_containers_use(store, base):
    store.load(docker_archive({"a": TOP}, tags=("unused:1", "unused:2")))
    store.images.users.append(lambda image: ["container c (exited)"] if image == base.id else [])
    report = store.images.prune({"dangling": ["false"]})
    assert {"Untagged": "unused:2"} in report["ImagesDeleted"]
    assert [image.tags for image in store.images.list()] == [("base:1",)]


def test_pruning_respects_age_and_labels(store):
    for name, labels in (("old", {}), ("kept", {"keep": "yes"})):
        store.images.import_tar(
            io.BytesIO(BASE),
            reference=f"{name}:1",
            changes=[f"LABEL n={name}"] + [f"LABEL {key}={value}" for key, value in labels.items()],
        )
    nothing = store.images.prune({"dangling": {"false": True}, "until": ["24h"]})
    assert nothing["ImagesDeleted"] is None
    store.images.prune({"dangling": ["false"], "label!": ["keep=yes"]})
    assert [image.tags for image in store.images.list()] == [("kept:1",)]
    with pytest.raises(InvalidArgument, match="invalid filter 'nothing'"):
        store.images.prune({"nothing": ["1"]})


# lists


def test_the_list_is_filtered_as_in_docker(store, base):
    store.load(docker_archive({"a": TOP}, tags=("me/app:1", "me/app:2")))
    loose = commit(store, base)

    def names(**filters):
        found = store.images.summaries({key: [value] for key, value in filters.items()})
        return sorted(tag for item in found for tag in item["RepoTags"] or ["<none>"])

    assert names() == ["<none>", "base:1", "me/app:1", "me/app:2"]
    assert names(dangling="true") == ["<none>"]
    assert names(reference="me/*") == ["me/app:1", "me/app:2"]
    assert names(reference="me/app:2") == ["me/app:2"]
    assert names(reference="b*:1") == ["base:1"]
    assert names(since="base:1") == ["<none>"]
    assert "<none>" not in names(before=loose.id)
    with pytest.raises(NotFound):
        names(before="nothing")


def test_nameless_parents_are_only_in_the_list_of_all(store, base):
    middle = commit(store, base)
    commit(store, middle, "top:1", tar({"x": b"x"}))
    shown = {item["Id"] for item in store.images.summaries({})}
    assert middle.id not in shown
    assert middle.id in {item["Id"] for item in store.images.summaries({}, all=True)}


def test_shared_size_counts_layers_of_several_images(store, base):
    child = commit(store, base, "child:1")
    found = {item["Id"]: item for item in store.images.summaries({}, shared_size=True)}
    assert found[child.id]["SharedSize"] == len(BASE)
    assert found[child.id]["Size"] == len(BASE) + len(TOP)
    assert store.images.layers_size() == len(BASE) + len(TOP)


# crashes and damage


def test_everything_is_there_after_a_new_start(store, base):
    child = commit(store, base, "child:1")
    before = store.images.inspect("child:1")
    images = store.reopened()
    assert images.inspect("child:1") == before
    assert images.get("child:1") == child
    assert images.get("base:1") == base


def test_a_start_sweeps_what_a_crash_left(store, base):
    kept = store.blobs()
    (store.root / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"orphan")
    (store.root / "ingest" / "half").mkdir()
    (store.root / "ingest" / "half" / "1").write_bytes(b"half")
    store.reopened()
    assert store.blobs() == kept
    assert store.leftovers() == []


def test_a_state_that_was_lost_costs_no_image(store, base):
    store.state.table("images").delete(base.id)
    assert store.reopened().get("base:1").id == base.id


@pytest.mark.parametrize("compression", ["plain", "gzip"])
def test_a_damaged_layer_is_noticed_when_it_is_read(store, compression):
    layer = tar({"f": bytes(range(256)) * 1000})
    store.load(docker_archive({"a": layer}, stored={"a": COMPRESSORS[compression](layer)}))
    (largest,) = sorted(
        (store.root / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size
    )[-1:]
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    largest.write_bytes(data)
    with pytest.raises(Internal, match="is damaged"):
        store.content("app:1")


def test_a_lost_blob_is_told_and_mended_by_loading_again(store):
    store.load(docker_archive({"a": BASE}))
    (store.root / "blobs" / "sha256" / digest(BASE)[7:]).unlink()
    with pytest.raises(NotFound, match="load the image again"):
        store.content("app:1")
    store.load(docker_archive({"a": BASE}, stored={"a": COMPRESSORS["gzip"](BASE)}))
    assert store.content("app:1") == BASE


def test_a_layer_can_be_left_unread(store):
    layer = tar({"big": bytes(30 << 20)})
    for stored in ("plain", "gzip"):
        store.load(docker_archive({"a": layer}, stored={"a": COMPRESSORS[stored](layer)}))
        stream = store.images.open_layer(store.images.get("app:1"), 0)
        assert bytes(next(stream.pieces()))[:10] == layer[:10]
        stream.close()
        stream.close()
        store.images.remove("app:1")


def test_many_threads_load_tag_and_remove_at_once(store):
    faults = []

    def work(number):
        try:
            layer = tar({"n": str(number).encode()})
            for _ in range(5):
                store.load(docker_archive({"a": BASE, "b": layer}, tags=(f"n{number}:1",)))
                store.images.tag(f"n{number}:1", f"n{number}:2")
                assert store.content(f"n{number}:2", 0) == BASE
                store.images.remove(f"n{number}:1")
                store.images.remove(f"n{number}:2")
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert store.blobs() == set()


# other tools


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_skopeo_and_umoci_read_the_store(store, base, tmp_path):
    commit(store, base, "child:1")
    name = "docker.io/library/child:1"
    shown = json.loads(run("skopeo", "inspect", f"oci:{store.root}:{name}"))
    assert shown["Layers"] == [digest(BASE), digest(TOP)]
    assert name in run("umoci", "ls", "--layout", str(store.root)).split()
    bundle = tmp_path / "bundle"
    run("umoci", "unpack", "--image", f"{store.root}:{name}", str(bundle))
    assert (bundle / "rootfs" / "etc" / "top").read_text() == "top\n"


def test_skopeo_reads_what_is_saved_and_its_archives_are_loaded(store, base, tmp_path):
    saved = tmp_path / "saved.tar"
    saved.write_bytes(b"".join(store.images.save(["base:1"])))
    for number, (source, target) in enumerate(
        [
            (f"docker-archive:{saved}:base:1", "docker-archive:{}:app:docker"),
            (f"oci-archive:{saved}:1", "oci-archive:{}:example.org/app:oci"),
        ]
    ):
        archive = tmp_path / f"copy{number}.tar"
        run("skopeo", "copy", source, target.format(archive))
        with open(archive, "rb") as stream:
            (line,) = store.images.load(stream)
        assert line in ("Loaded image: app:docker", "Loaded image: example.org/app:oci")
    assert store.content("app:docker") == store.content("example.org/app:oci") == BASE
