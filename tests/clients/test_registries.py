"""Pulling and pushing: a real registry, docker's client and ours."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.registry import PASSWORD, USER, Registry, Tokens, certify

from drivetrain.testing.hosts import Host, busybox_tar, eventually


@pytest.fixture(scope="module")
def registry(engine_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(engine_host, tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(autouse=True)
def own_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Clients remember their logins in a folder of the test's."""
    (tmp_path / "client").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "client"))


def make(host: Host, name: str, extra: str) -> str:
    """Make an image of busybox and a layer of its own, with ``/mine`` in it; return its id."""
    host.docker("import", "-c", f"ENV EXTRA={extra}", "-", name, data=busybox_tar())
    container = host.docker("create", name, "true").stdout.strip()
    host.docker("cp", "-", f"{container}:/", data=tar_of("mine", name.encode()))
    made = host.docker("commit", container, name).stdout.strip()
    host.docker("rm", container)
    return made


def tar_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def forget(host: Host) -> None:
    """Remove all images, so that a pull has to bring everything."""
    if names := host.docker("images", "-q", "--no-trunc").stdout.split():
        host.docker("rmi", "-f", *dict.fromkeys(names))


@pytest.fixture
def host(engine_host: Host) -> Iterator[Host]:
    yield engine_host
    engine_host.clear()
    forget(engine_host)
    engine_host.load_busybox()


@pytest.mark.parametrize("client", ["docker", "engine"])
def test_what_is_pushed_comes_back_by_a_pull(host: Host, registry: Registry, client: str) -> None:
    call = getattr(host, client)
    name = f"{registry.name}/some/{client}:1"
    made = make(host, name, client)
    pushed = call("push", name).stdout
    assert f"The push refers to repository [{registry.name}/some/{client}]" in pushed
    assert pushed.count("Pushed") == 2 and "1: digest: sha256:" in pushed
    assert call("push", name).stdout.count("Layer already exists") == 2
    forget(host)
    pulled = call("pull", name).stdout
    assert "1: Pulling from " in pulled and pulled.count("Pull complete") == 2
    assert f"Status: Downloaded newer image for {name}" in pulled
    assert host.docker("inspect", "-f", "{{.Id}}", name).stdout.strip() == made
    assert f"Status: Image is up to date for {name}" in call("pull", name).stdout
    assert call("run", "--rm", name, "cat", "/mine").stdout == name


@pytest.mark.parametrize("client", ["docker", "engine"])
def test_run_pulls_what_is_missing(host: Host, registry: Registry, client: str) -> None:
    name = f"{registry.name}/run/{client}"
    make(host, name, "run")
    host.docker("push", name)
    forget(host)
    never = getattr(host, client)("run", "--pull", "never", name, "true", check=False)
    assert never.returncode == 125 and "No such image" in never.stderr
    done = getattr(host, client)("run", "--rm", name, "echo", "here")
    assert done.stdout == "here\n"
    assert f"Unable to find image '{name}:latest' locally" in done.stderr
    assert "Downloaded newer image" in done.stderr
    always = getattr(host, client)("run", "--rm", "--pull", "always", name, "true")
    assert "Image is up to date" in always.stdout + always.stderr


def test_digests_all_tags_and_what_a_registry_says(host: Host, registry: Registry) -> None:
    repository = f"{registry.name}/several"
    for tag in ("a", "b"):
        make(host, f"{repository}:{tag}", tag)
    host.docker("push", "-a", repository)
    digest = host.docker("inspect", "-f", "{{index .RepoDigests 0}}", f"{repository}:a").stdout
    exact = digest.strip()
    said = json.loads(host.run_in_network("docker", "manifest", "inspect", "--insecure", exact))
    assert len(said["layers"]) == 2
    forget(host)
    assert host.docker("pull", "-q", exact).stdout == f"{exact}\n"
    assert host.docker("inspect", "-f", "{{.RepoTags}}", exact).stdout == "[]\n"
    assert host.docker("run", "--rm", exact, "sh", "-c", "echo $EXTRA").stdout == "a\n"
    host.kill()
    host.start()
    assert host.docker("run", "--rm", exact, "sh", "-c", "echo $EXTRA").stdout == "a\n"
    assert "Untagged" in host.docker("rmi", exact).stdout
    assert host.docker("images", "-q").stdout == ""
    host.docker("pull", "-a", repository)
    tags = host.docker("images", "--format", "{{.Tag}}", repository).stdout.split()
    assert sorted(tags) == ["a", "b"]


def test_what_is_not_there_is_named(host: Host, registry: Registry) -> None:
    missing = host.docker("pull", f"{registry.name}/no/such:1", check=False)
    assert f"manifest for {registry.name}/no/such:1 not found: manifest unknown" in missing.stderr
    nobody = host.docker("pull", "127.0.0.1:1/x", check=False)
    assert "cannot reach the registry 127.0.0.1:1" in nobody.stderr
    assert "Connection refused" in nobody.stderr
    ours = host.docker("push", f"{registry.name}/never/made", check=False)
    assert "does not exist locally with the tag" in ours.stderr
    run = host.engine("run", f"{registry.name}/no/such", "true", check=False)
    assert run.returncode == 125 and "engine load" in run.stderr


def test_the_image_of_a_platform_is_chosen(host: Host, registry: Registry) -> None:
    repository = f"{registry.name}/many"
    manifests = []
    for architecture in ("amd64", "arm64"):
        name = f"{repository}:{architecture}"
        host.docker("import", "--platform", f"linux/{architecture}", "-", name, data=busybox_tar())
        host.docker("push", name)
        descriptor = json.loads(host.docker("inspect", "-f", "{{json .Descriptor}}", name).stdout)
        manifests.append(descriptor)
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": manifests})
    script = (
        "import sys, urllib.request as r; r.urlopen(r.Request("
        f"'http://{registry.name}/v2/many/manifests/all', {index.encode()!r},"
        f" {{'Content-Type': {kind!r}}}, method='PUT'))"
    )
    host.run_in_network(sys.executable, "-c", script)
    forget(host)
    host.docker("pull", f"{repository}:all")
    form = ("inspect", "-f", "{{.Architecture}}", f"{repository}:all")
    assert host.docker(*form).stdout == "amd64\n"
    host.docker("pull", "--platform", "linux/arm64", f"{repository}:all")
    assert host.docker(*form).stdout == "arm64\n"
    absent = host.docker("pull", "--platform", "linux/s390x", f"{repository}:all", check=False)
    assert "no matching manifest for linux/s390x" in absent.stderr


def test_damaged_content_is_refused_and_not_kept(host: Host, registry: Registry) -> None:
    name = f"{registry.name}/damaged"
    make(host, name, "damaged")
    host.docker("push", name)
    manifest = host.run_in_network("docker", "manifest", "inspect", "--insecure", name)
    layers = json.loads(manifest)["layers"]
    digest = layers[-1]["digest"]
    blob = registry.blobs / digest[7:9] / digest[7:] / "data"
    data = bytearray(blob.read_bytes())
    data[600] ^= 1
    blob.write_bytes(data)
    forget(host)
    refused = host.docker("pull", name, check=False)
    assert refused.returncode != 0 and digest in refused.stderr
    assert host.docker("images", "-aq").stdout == ""
    assert list((host.data_root / "content/ingest").iterdir()) == []


def test_a_registry_that_goes_away_for_a_moment(host: Host, registry: Registry) -> None:
    name = f"{registry.name}/large"
    host.docker("import", "-", name, data=tar_of("large", bytes(100 << 20)))
    host.docker("push", name)
    forget(host)
    pulled: list[str] = []
    thread = threading.Thread(target=lambda: pulled.append(host.docker("pull", name).stdout))
    thread.start()
    ingest = host.data_root / "content/ingest"
    eventually(lambda: any(file.stat().st_size for file in ingest.glob("*/*")), "bytes come")
    registry.stop()
    registry.start()
    thread.join()
    assert "Downloaded newer image" in pulled[0]


def hashed(password: str) -> str:
    """Return a bcrypt hash, the only kind that the registry takes."""
    call = "print crypt($ARGV[0], q($2b$05$abcdefghijklmnopqrstuu))"
    done = subprocess.run(["perl", "-e", call, password], capture_output=True, text=True)
    assert done.stdout.startswith("$2b$")
    return done.stdout


def refuses_strangers(host: Host, registry: Registry) -> None:
    """Check that a registry takes pushes and pulls of its one user only, with both clients."""
    name = f"{registry.name}/private/one"
    make(host, name, "private")
    denied = host.docker("push", name, check=False)
    assert denied.returncode != 0 and "it may need a login" in denied.stderr
    wrong = ("login", "-u", USER, "--password-stdin", registry.name)
    for client in (host.docker, host.engine):
        bad = client(*wrong, data=b"wrong", check=False)
        assert bad.returncode != 0 and "login" in bad.stderr
        assert "Login Succeeded" in client(*wrong, data=PASSWORD.encode()).stdout
        client("push", name)
        forget(host)
        client("pull", name)
        assert client("run", "--rm", name, "echo", "ours").stdout == "ours\n"
        client("logout", registry.name)
        host.clear()
    forget(host)
    stranger = host.docker("pull", name, check=False)
    assert f"pull access denied for {registry.name}/private/one" in stranger.stderr


def test_a_registry_with_passwords(host: Host, tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"{USER}:{hashed(PASSWORD)}\n")
    auth = {"htpasswd": {"realm": "test", "path": str(tmp_path / "users")}}
    with Registry(host, tmp_path, 5002, auth=auth) as registry:
        refuses_strangers(host, registry)


def test_a_registry_with_a_server_of_tokens(host: Host, tmp_path: Path) -> None:
    with (
        Tokens(host, tmp_path) as tokens,
        Registry(host, tmp_path, 5003, auth=tokens.auth) as registry,
    ):
        refuses_strangers(host, registry)
        asked = tokens.requests.read_text()
        assert "scope=repository%3Aprivate%2Fone%3Apull%2Cpush" in asked
        assert "scope=repository%3Aprivate%2Fone%3Apull\n" in asked


def test_certificates_and_hosts_without(host: Host, tmp_path: Path) -> None:
    address = "192.0.2.10"
    host.run_in_network("ip", "address", "add", f"{address}/32", "dev", "lo")
    certify(tmp_path, "registry", address)
    tls = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    trusted = host.config_file.parent / "certs.d" / f"{address}:5004"
    name = f"{address}:5004/secure"
    try:
        with Registry(host, tmp_path, 5004, http={"tls": tls}):
            make(host, name, "secure")
            refused = host.docker("push", name, check=False)
            assert "certificate verify failed" in refused.stderr
            assert "certs.d" in refused.stderr and "insecure-registries" in refused.stderr
            trusted.mkdir(parents=True)
            shutil.copy(tmp_path / "cert.pem", trusted / "ca.crt")
            host.docker("push", name)
            shutil.rmtree(trusted)
            host.config_file.write_text(json.dumps({"insecure-registries": ["192.0.2.0/24"]}))
            host.stop()
            host.start()
            host.docker("push", name)
            assert "192.0.2.0/24" in host.docker("info").stdout
    finally:
        host.config_file.write_text("{}")
        host.run_in_network("ip", "address", "delete", f"{address}/32", "dev", "lo")
        host.stop()
        host.start()


def test_mirrors_of_docker_hub(host: Host, registry: Registry) -> None:
    make(host, f"{registry.name}/library/famous:1", "mirrored")
    host.docker("push", f"{registry.name}/library/famous:1")
    forget(host)
    host.stop()
    host.start("--registry-mirror", f"http://{registry.name}")
    assert host.docker("run", "--rm", "famous:1", "sh", "-c", "echo $EXTRA").stdout == "mirrored\n"
    host.stop()
    host.start()
