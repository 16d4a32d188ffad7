"""The real docker-compose against our socket: a project is started, changed and taken down."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain.testing.hosts import Host, eventually

PROJECT = """
version: "3.8"
services:
  web:
    image: busybox
    command: sh -c "echo hello > /www/index.html && exec httpd -f -p 80 -h /www"
    ports: ["127.0.0.1:8081:80"]
    networks: {front: {aliases: [site]}, back: {ipv4_address: 10.99.0.7}}
    volumes: ["www:/www", "./conf:/conf:ro", {type: tmpfs, target: /cache}]
    environment: {A: "1"}
    healthcheck: {test: ["CMD", "wget", "-qO-", "http://127.0.0.1/"], interval: 1s}
    logging: {driver: json-file, options: {max-size: 1m}}
    restart: unless-stopped
    sysctls: {net.core.somaxconn: 512}
  client:
    image: busybox
    depends_on: [web]
    command: sh -c "until wget -qO- http://site/; do sleep 0.2; done"
    networks: [front]
  worker:
    image: busybox
    command: sh -c "trap 'exit 0' TERM; echo at work; while :; do sleep 0.2; done"
    networks: [back]
volumes: {www: {}}
networks:
  front: {}
  back: {internal: true, ipam: {config: [{subnet: 10.99.0.0/24}]}}
"""


class Project:
    """A folder with a Compose file."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.folder = folder
        (folder / "docker-compose.yml").write_text(PROJECT)
        (folder / "conf").mkdir()
        (folder / "conf" / "file").write_text("from the host\n")

    def __call__(self, *arguments: str) -> str:
        """Run a command of docker-compose and return what it prints."""
        done = subprocess.run(
            ["docker-compose", "--project-name", "it", *arguments],
            cwd=self.folder,
            env={**os.environ, "DOCKER_HOST": f"unix://{self.host.socket}"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{self.host.log_tail()}"
        return done.stdout


@pytest.fixture
def project(host: Host, tmp_path: Path) -> Iterator[Project]:
    project = Project(host, tmp_path)
    yield project
    project("down", "--volumes", "--timeout", "1")


def test_a_project_comes_up_talks_and_goes(host: Host, project: Project) -> None:
    project("up", "--detach", "--scale", "worker=2")
    assert host.docker("wait", "it_client_1").stdout == "0\n"
    assert project("logs", "--no-color", "client").splitlines()[-1].endswith("| hello")
    assert project("exec", "-T", "worker", "wget", "-qO-", "http://10.99.0.7/") == "hello\n"
    assert project("exec", "-T", "web", "cat", "/conf/file") == "from the host\n"
    assert project("port", "web", "80") == "127.0.0.1:8081\n"
    status = ("inspect", "-f", "{{.State.Health.Status}}", "it_web_1")
    eventually(lambda: host.docker(*status).stdout == "healthy\n", "web is healthy")
    networks = json.loads(
        host.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "it_web_1").stdout
    )
    assert set(networks) == {"it_front", "it_back"}
    assert networks["it_back"]["IPAddress"] == "10.99.0.7"
    project("down", "--volumes", "--timeout", "1")
    assert host.docker("ps", "-aq").stdout == ""
    assert "it_" not in host.docker("network", "ls", "--format", "{{.Name}}").stdout
    assert "it_" not in host.docker("volume", "ls", "-q").stdout


def test_services_are_scaled_restarted_stopped_and_made_anew(host: Host, project: Project) -> None:
    project("up", "--detach", "worker")
    first = project("ps", "-q", "worker")
    project("up", "--detach", "worker")
    assert project("ps", "-q", "worker") == first, "nothing changed, so nothing is made anew"
    project("up", "--detach", "--scale", "worker=3", "worker")
    assert len(project("ps", "-q", "worker").split()) == 3
    assert "sh -c" in project("top", "worker")
    project("restart", "--timeout", "1", "worker")
    project("pause", "worker")
    project("unpause", "worker")
    file = project.folder / "docker-compose.yml"
    file.write_text(file.read_text().replace("at work", "at other work"))
    project("up", "--detach", "--timeout", "1", "worker")
    assert first.strip() not in project("ps", "-q", "worker")
    eventually(lambda: "at other work" in project("logs", "worker"), "the new one works")
    project("stop", "--timeout", "1", "worker")
    assert host.docker("ps", "-q").stdout == ""
    project("rm", "--force", "worker")
    assert host.docker("ps", "-aq").stdout == ""


def test_one_command_of_a_service_is_run(project: Project) -> None:
    command = ("run", "--rm", "-T", "-e", "B=2", "--no-deps", "client", "sh", "-c", "echo $B")
    assert project(*command) == "2\n"
