"""Images between this engine and a real dockerd, in both directions."""

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.dockerd import Dockerd
from tests.images import Store

from drivetrain.testing.rootfs import busybox_tar


@pytest.fixture(scope="module")
def dockerd():
    # a unix socket's path has to be short
    root = Path(f"/tmp/dt-dockerd-{os.getpid()}")
    root.mkdir()
    daemon = None
    try:
        daemon = Dockerd(root)
        daemon.wait()
        daemon("import", "-c", 'CMD ["sh"]', "-c", "ENV A=1", "-", "busybox:1", stdin=busybox_tar())
        container = daemon("create", "busybox:1", "true").decode().strip()
        daemon("cp", __file__, f"{container}:/etc/this-test")
        daemon("commit", "--author", "me", container, "child:1")
        yield daemon
    finally:
        if daemon is not None:
            daemon.stop()
        shutil.rmtree(root)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "images")


def test_what_docker_saves_is_loaded_with_all_it_says(dockerd, store):
    lines = store.load(dockerd("save", "busybox:1", "child:1"))
    assert sorted(lines) == ["Loaded image: busybox:1", "Loaded image: child:1"]
    for name in ("busybox:1", "child:1"):
        (theirs,) = json.loads(dockerd("image", "inspect", name))
        ours = store.images.inspect(name)
        for key in ("Id", "RepoTags", "Created", "Architecture", "Os", "Author", "RootFS"):
            assert ours[key] == theirs[key], key
        assert ours["Config"]["Cmd"] == theirs["Config"]["Cmd"]
        assert ours["Config"]["Env"] == theirs["Config"]["Env"]
    assert store.content("busybox:1")[257:262] == b"ustar"


def test_docker_loads_what_is_saved_here(dockerd, store):
    image = store.images.import_tar(
        io.BytesIO(busybox_tar()), reference="ours:1", changes=['CMD ["/bin/true"]', "USER 1"]
    )
    child = store.images.commit(
        parent=image, layer=None, config=image.settings, comment="c", reference="ours:2"
    )
    output = dockerd("load", stdin=b"".join(store.images.save(["ours"]))).decode()
    assert "Loaded image: ours:1" in output
    (theirs,) = json.loads(dockerd("image", "inspect", "ours:2"))
    assert theirs["Id"] == child.id
    assert theirs["Config"]["User"] == "1"


def test_docker_loads_compressed_layers_that_are_saved_here(dockerd, store, tmp_path):
    source, target = tmp_path / "from.tar", tmp_path / "to.tar"
    source.write_bytes(dockerd("save", "busybox:1"))
    copy = ["skopeo", "copy", f"docker-archive:{source}", f"oci-archive:{target}:packed/it:1"]
    subprocess.run(copy, check=True, capture_output=True)
    with open(target, "rb") as stream:
        assert list(store.images.load(stream)) == ["Loaded image: packed/it:1"]
    layer = store.images.inspect("packed/it:1")
    output = dockerd("load", stdin=b"".join(store.images.save(["packed/it:1"])))
    assert b"Loaded image: packed/it:1" in output
    (theirs,) = json.loads(dockerd("image", "inspect", "packed/it:1"))
    assert theirs["RootFS"]["Layers"] == layer["RootFS"]["Layers"]
