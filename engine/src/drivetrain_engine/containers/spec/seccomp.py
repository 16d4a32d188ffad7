"""The seccomp profile of a container, for the host's own architecture.

Filters for more architectures cost some ten milliseconds at every start (measured), and a program
of another architecture is rare; who needs it brings a profile.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain_engine.containers.spec import seccomp_table as table

Json = dict[str, Any]

_NATIVE = {
    "x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64", "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X", "riscv64": "SCMP_ARCH_RISCV64", "armv7l": "SCMP_ARCH_ARM",
    "i686": "SCMP_ARCH_X86",
}  # fmt: skip
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "x86", "armv7l": "arm"}


def _native() -> list[str]:
    name = _NATIVE.get(platform.machine())
    return [name] if name else []


def _allow(*names: str, args: list[Json] | None = None) -> Json:
    entry: Json = {"names": list(names), "action": "SCMP_ACT_ALLOW"}
    if args:
        entry["args"] = args
    return entry


@lru_cache(64)
def default_profile(capabilities: frozenset[str]) -> Json:
    """Return the ``linux.seccomp`` object for a container with these capabilities."""
    names = set(table.ALLOWED) | set(table.BY_ARCHITECTURE.get(platform.machine(), ()))
    for capability, more in table.WITH_CAPABILITY.items():
        if capability in capabilities:
            names.update(more)
    rules = [_allow(*sorted(names))]
    for value in table.PERSONALITIES:
        rules.append(_allow("personality", args=[_argument(0, value, "SCMP_CMP_EQ")]))
    rules.append(_allow("socket", args=[_argument(0, table.AF_VSOCK, "SCMP_CMP_NE")]))
    if "CAP_SYS_ADMIN" not in capabilities:
        # s390x has the flags in the second place.
        index = 1 if platform.machine() == "s390x" else 0
        masked = {**_argument(index, table.NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ"), "valueTwo": 0}
        rules.append(_allow("clone", args=[masked]))
        # Its flags are behind a pointer; ENOSYS makes programs fall back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": table.ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": table.EPERM,
        "architectures": _native(),
        "syscalls": rules,
    }


def _argument(index: int, value: int, operator: str) -> Json:
    return {"index": index, "value": value, "op": operator}


def check_profile(text: str) -> Json:
    """Return the JSON of a profile in Docker's format.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        profile = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"decoding seccomp profile failed: {error}") from None
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise InvalidArgument("decoding seccomp profile failed: defaultAction is needed")
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidArgument(
            "both 'architectures' and 'archMap' are specified in the seccomp profile"
        )
    rules = profile.get("syscalls") or []
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise InvalidArgument("decoding seccomp profile failed: syscalls must be objects")
    for rule in rules:
        if not (rule.get("names") or rule.get("name")) or not rule.get("action"):
            raise InvalidArgument(
                "decoding seccomp profile failed: a rule needs names and an action"
            )
        if rule.get("names") and rule.get("name"):
            raise InvalidArgument(
                "'name' and 'names' were specified in the seccomp profile, use either one"
            )
    return profile


def convert_profile(text: str, capabilities: Collection[str]) -> Json:
    """Return the ``linux.seccomp`` object that a profile means on this host.

    Args:
        text: JSON in Docker's format, with ``includes`` and ``excludes``.
        capabilities: of the container.

    Raises:
        InvalidArgument: it is no profile.
    """
    profile = check_profile(text)
    result: Json = {"defaultAction": profile["defaultAction"]}
    if profile.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = profile["defaultErrnoRet"]
    for key in ("flags", "listenerPath", "listenerMetadata"):
        if profile.get(key):
            result[key] = profile[key]
    native = _native()
    architectures = profile.get("architectures") or native
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") in native:
            architectures = [entry["architecture"], *(entry.get("subArchitectures") or ())]
    result["architectures"] = architectures
    result["syscalls"] = [
        _rule(rule)
        for rule in profile.get("syscalls") or ()
        if _applies(rule.get("includes") or {}, capabilities, exclude=False)
        and _applies(rule.get("excludes") or {}, capabilities, exclude=True)
    ]
    return result


def _rule(rule: Mapping[str, Any]) -> Json:
    found: Json = {"names": rule.get("names") or [rule["name"]], "action": rule["action"]}
    if rule.get("errnoRet") is not None:
        found["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        found["args"] = [
            {key: value for key, value in argument.items() if value is not None}
            for argument in rule["args"]
        ]
    return found


def _applies(condition: Mapping[str, Any], capabilities: Collection[str], *, exclude: bool) -> bool:
    machine = platform.machine()
    tests = []
    if wanted := condition.get("arches"):
        tests.append(_GO_NAMES.get(machine, machine) in wanted)
    if wanted := condition.get("caps"):
        held = [capability in capabilities for capability in wanted]
        tests.append(any(held) if exclude else all(held))
    if minimum := condition.get("minKernel"):
        tests.append(_kernel() >= tuple(int(part) for part in re.findall(r"\d+", minimum)[:2]))
    return not any(tests) if exclude else all(tests)


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
