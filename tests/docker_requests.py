"""What docker's command line (28.2.2) sends for some command lines, recorded.

Recorded, since what it sends depends on its version, and hosts have different ones. To record
anew, with the docker command on the PATH::

    python -m tests.docker_requests
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.capture import Capture, Request

RECORDED = Path(__file__).with_suffix(".json")
HOME = "/home/somebody"

CREATES = [
    "busybox",
    "-it busybox sh -c 'echo hi'",
    "--name n --rm -e A=1 -e HOME -w /w -u 1:2 --hostname h --domainname d busybox",
    "-v /a:/b:ro -v vol:/c -v /anon -v ./rel:/rel --tmpfs /run:size=1m --tmpfs /q busybox",
    "--mount type=bind,source=/x,target=/y,readonly,bind-propagation=rslave busybox",
    "--mount type=volume,src=v,dst=/v,volume-driver=local,volume-opt=o=size=1,volume-label=a=b,"
    "volume-nocopy,volume-subpath=s busybox",
    "--mount type=tmpfs,destination=/t,tmpfs-size=64m,tmpfs-mode=1770 busybox",
    "-p 8080:80 -p 127.0.0.1::53/udp -p 9000-9001:90-91 -p 1234 -p [::1]:6:6 -p 3000-3005:70 -P"
    " --expose 99 --expose 100-101/udp busybox",
    "--network foo --network name=bar,alias=z,ip=10.1.1.1,driver-opt=k=v,gw-priority=3"
    " --ip 10.0.0.9 --link a:b --link c --network-alias na busybox",
    "--network none busybox",
    "--network container:x busybox",
    "--entrypoint /e --cap-add NET_ADMIN --cap-add cap_sys_time --cap-drop ALL --privileged"
    " --read-only --security-opt no-new-privileges --security-opt seccomp=unconfined busybox",
    "-m 64m --memory-swap -1 --memory-reservation 1.5m --cpus 1.5 --cpuset-cpus 0 --pids-limit 10"
    " --ulimit nofile=10:20 --ulimit core=-1 --shm-size 1g --cpu-shares 5 busybox",
    "--label a=b --label c --log-driver json-file --log-opt max-size=1m --storage-opt size=1G"
    " --annotation a=b busybox",
    "--restart on-failure:3 --stop-signal TERM --stop-timeout 3 --init busybox",
    "--device /dev/null:/dev/n:rw --device /dev/zero --group-add 5 --device-cgroup-rule 'c 1:3 mr'"
    " --device-read-bps /dev/sda:1mb --sysctl net.ipv4.ip_forward=1 busybox",
    "--ipc private --pid host --uts host --userns host --cgroupns private --cgroup-parent p"
    " --runtime runc --oom-kill-disable --oom-score-adj 5 --blkio-weight 10 busybox",
    "--add-host h:1.1.1.1 --add-host g=::1 --dns 1.1.1.1 --dns-search s --dns-option o"
    " --volumes-from q:ro --volume-driver local busybox",
    "--health-cmd 'x y' --health-interval 3s --health-timeout 1m --health-retries 4"
    " --health-start-period 1s busybox",
    "--no-healthcheck --entrypoint '' -a stdin -a stdout --gpus all busybox",
]

OTHERS = [
    "network create --driver bridge --subnet 10.0.0.0/24 --gateway 10.0.0.1 --ip-range"
    " 10.0.0.128/25 --aux-address h=10.0.0.5 -o a=b --label x=y --internal --attachable nn",
    "network create plain",
    "network connect --ip 1.2.3.4 --alias al --driver-opt a=b --link x:y nn c",
    "network disconnect -f nn c",
    "volume create --driver local -o type=tmpfs --label q=r vv",
    "volume create",
    "update --memory 10m --cpus 1 --restart always c",
    "kill -s TERM c",
    "stop -t 3 c",
    "restart -t 3 c",
    "rm -f -v c",
    "rmi -f a",
    "pause c",
    "unpause c",
    "rename a b",
    "wait c",
    "diff c",
    "top c -ef",
    "history a",
    "save a b",
    "volume prune -f -a",
    "network prune -f",
    "image prune -af",
    "container prune -f --filter until=1h",
    "exec -d -e A=1 -u 1 -w /q --privileged c ls -l",
]


def said(value: Any) -> Any:
    """A body without what says nothing, which docker sends and we leave out."""
    if isinstance(value, dict):
        kept = {key: said(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one not in (None, "", 0, False, [], {})}
    return [said(one) for one in value] if isinstance(value, list) else value


def settled(body: dict[str, Any]) -> dict[str, Any]:
    """A create body with docker's defaults, and its orders that mean nothing, taken out."""
    body = said(body)
    config = body.get("HostConfig", {})
    config.pop("ConsoleSize", None)
    if config.get("MemorySwappiness") == -1:
        del config["MemorySwappiness"]
    if "Binds" in config:
        config["Binds"].sort()
    if "Ulimits" in config:
        config["Ulimits"].sort(key=lambda one: one["Name"])
    if body.get("NetworkingConfig") == {"EndpointsConfig": {"default": {}}}:
        del body["NetworkingConfig"]
    if "Entrypoint" in body:
        body["Entrypoint"] = [word for word in body["Entrypoint"] if word]
    return said(body)  # type: ignore[no-any-return]


def comparable(request: Request, folder: Path) -> list[Any]:
    """A request as recorded: method, path, query and what its body says."""
    body = request.body if isinstance(request.body, dict) else {}
    body = settled(body) if request.path.endswith("/containers/create") else said(body)
    body.pop("CheckDuplicate", None)
    query: dict[str, Any] = dict(request.queries)
    if "filters" in request.query:
        # docker sends {"a":{"x":true}}, we {"a":["x"]}; the API takes both.
        filters = json.loads(request.query["filters"])
        query["filters"] = {key: sorted(values) for key, values in filters.items()}
    text = json.dumps([request.method, request.path, query, body], sort_keys=True)
    found: list[Any] = json.loads(text.replace(str(folder), "{folder}"))
    return found


def prepare(server: Capture) -> None:
    """Let the server have the container c."""
    server.answers["GET /containers/c/json"] = (
        200,
        {"Id": "c", "Config": {"Tty": False}, "HostConfig": {}, "State": {"Running": True}},
    )


def record() -> None:
    """Run docker for every command line and write down what it sends."""
    recorded: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Capture(folder / "api.sock") as server:
            prepare(server)
            docker = ["docker", "--config", name, "-H", server.address]
            for words in [*(f"create {words}" for words in CREATES), *OTHERS]:
                server.requests.clear()
                subprocess.run(
                    [*docker, *shlex.split(words)],
                    cwd=folder,
                    capture_output=True,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, "HOME": HOME},
                    timeout=60,
                )
                sent = server.requests
                # It looks at the container before it renames or executes; the daemon tells us.
                asked = [one for one in sent if one.method not in ("GET", "HEAD") or len(sent) == 1]
                recorded[words] = [comparable(one, folder) for one in asked]
    RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    record()
