"""``--change`` of import and commit: the Dockerfile instructions that alter an image's config."""

from __future__ import annotations

import copy
import json
import posixpath
import re
import shlex
import signal
from collections.abc import Callable, Sequence
from typing import Any

from drivetrain.errors import InvalidArgument
from drivetrain.options import parse_duration

Config = dict[str, Any]

_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_FORBIDDEN_TRIGGERS = frozenset({"ONBUILD", "FROM", "MAINTAINER"})


def apply_changes(config: Config, changes: Sequence[str]) -> Config:
    """Return the config with the instructions applied; the argument stays as it is.

    Args:
        config: the ``config`` object of an image, with Docker's key names.
        changes: lines such as ``CMD ["sh"]`` or ``ENV A=1 B=2``.

    Raises:
        InvalidArgument: an instruction that is unknown, not allowed here or malformed.
    """
    result = copy.deepcopy(config)
    command_given = False
    for part in (part for line in changes for part in _join_continued(line)):
        word, _, rest = part.partition(" ")
        word = word.upper()
        handler = _HANDLERS.get(word)
        if handler is None:
            raise InvalidArgument(f"{word} is not a valid change command")
        handler(result, rest.strip(), word)
        command_given = command_given or word == "CMD"
        if word == "ENTRYPOINT" and not command_given:
            # as in a Dockerfile, a new entry point makes an inherited command meaningless
            result["Cmd"] = None
    return result


def _join_continued(text: str) -> list[str]:
    lines = re.sub(r"\\[ \t]*\n", " ", text).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def _needs(rest: str, word: str) -> str:
    if not rest:
        raise InvalidArgument(f"{word} requires at least one argument")
    return rest


def _json_list(rest: str) -> list[str] | None:
    if not rest.startswith("["):
        return None
    try:
        value = json.loads(rest)
    except ValueError:
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def _command(rest: str) -> list[str] | None:
    words = _json_list(rest)
    if words is not None:
        return words or None
    return ["/bin/sh", "-c", rest] if rest else None


def _split(rest: str, word: str) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise InvalidArgument(f"{word} {rest}: {error}") from error


def _pairs(rest: str, word: str) -> list[tuple[str, str]]:
    """Return the pairs of ``a=1 b="2 3"``, or of the old form ``a anything else``."""
    first = _needs(rest, word).split(None, 1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise InvalidArgument(f"{word} must have two arguments")
        return [(first[0], first[1])]
    pairs = []
    for item in _split(rest, word):
        name, equals, value = item.partition("=")
        if not equals:
            raise InvalidArgument(
                f"Syntax error - can't find = in {item!r}. Must be of the form: name=value"
            )
        if not name:
            raise InvalidArgument(f"{word} names can not be blank")
        pairs.append((name, value))
    return pairs


def _cmd(config: Config, rest: str, word: str) -> None:
    config["Cmd"] = _command(rest)


def _entrypoint(config: Config, rest: str, word: str) -> None:
    config["Entrypoint"] = _command(rest)


def _env(config: Config, rest: str, word: str) -> None:
    environment = list(config.get("Env") or [])
    for name, value in _pairs(rest, word):
        entry = f"{name}={value}"
        for index, old in enumerate(environment):
            if old.partition("=")[0] == name:
                environment[index] = entry
                break
        else:
            environment.append(entry)
    config["Env"] = environment


def _label(config: Config, rest: str, word: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(rest, word))}


def _expose(config: Config, rest: str, word: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for item in _needs(rest, word).split():
        match = _PORT.fullmatch(item)
        if match is None:
            raise InvalidArgument(f"invalid containerPort: {item}")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 < first <= last <= 65535:
            raise InvalidArgument(f"invalid containerPort: {item}")
        for port in range(first, last + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
    config["ExposedPorts"] = ports


def _user(config: Config, rest: str, word: str) -> None:
    if len(_needs(rest, word).split()) != 1:
        raise InvalidArgument("USER requires exactly one argument")
    config["User"] = rest


def _volume(config: Config, rest: str, word: str) -> None:
    words = _json_list(_needs(rest, word))
    volumes = dict(config.get("Volumes") or {})
    for path in rest.split() if words is None else words:
        if not path.strip():
            raise InvalidArgument("VOLUME specified can not be an empty string")
        volumes[path] = {}
    config["Volumes"] = volumes


def _workdir(config: Config, rest: str, word: str) -> None:
    current = config.get("WorkingDir") or "/"
    config["WorkingDir"] = posixpath.normpath(posixpath.join("/", current, _needs(rest, word)))


def _stop_signal(config: Config, rest: str, word: str) -> None:
    name = rest.upper() if rest.upper().startswith("SIG") else "SIG" + rest.upper()
    known = name in signal.Signals.__members__ or re.fullmatch(r"SIGRT(MIN\+|MAX-)\d+", name)
    if not known and not (rest.isdigit() and 0 < int(rest) <= 64):
        raise InvalidArgument(f"invalid signal: {rest}")
    config["StopSignal"] = rest


def _on_build(config: Config, rest: str, word: str) -> None:
    trigger = _needs(rest, word).split()[0].upper()
    if trigger == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in _FORBIDDEN_TRIGGERS:
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or []), rest]


_HEALTH_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def _health_flags(rest: str) -> tuple[Config, str]:
    health: Config = {}
    while match := re.match(r"--([a-z-]+)=(\S+)\s*", rest):
        flag, value = match[1], match[2]
        rest = rest[match.end() :]
        try:
            if flag == "retries":
                health["Retries"] = int(value)
            elif flag in _HEALTH_TIMES:
                health[_HEALTH_TIMES[flag]] = round(parse_duration(value) * 1e9)
            else:
                raise InvalidArgument(f"Unknown flag: {flag}")
        except ValueError as error:
            raise InvalidArgument(f"HEALTHCHECK --{flag}={value}: {error}") from error
    return health, rest


def _health_check(config: Config, rest: str, word: str) -> None:
    health, rest = _health_flags(_needs(rest, word))
    kind, _, command = rest.partition(" ")
    command = command.strip()
    if kind.upper() == "NONE":
        if command:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD":
        raise InvalidArgument(f"Unknown type {kind!r} in HEALTHCHECK (try CMD)")
    words = _json_list(command)
    test = ["CMD", *words] if words is not None else ["CMD-SHELL", command]
    if len(test) < 2 or not test[1]:
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    config["Healthcheck"] = {"Test": test, **health}


_HANDLERS: dict[str, Callable[[Config, str, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _health_check,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
