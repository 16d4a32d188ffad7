"""The part of Go's text/template that ``--format`` users write.

Fields (``.A.B``), variables, pipelines, literals, ``if``/``else``/``with``/``range``/``end``,
trimming by ``{{-`` and ``-}}``, and docker's functions: json, join, split, lower, upper, title,
truncate, pad, println, print, printf, len, index, slice, eq, ne, lt, le, gt, ge, and, or, not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from drivetrain_engine.cli.errors import UsageError
from drivetrain_engine.cli.template_functions import FUNCTIONS, Absent, show

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<pipe>\|)"""
    r"""|(?P<open>\()|(?P<close>\)(?:\.[A-Za-z0-9_.]+)?)|(?P<assign>:=)|(?P<comma>,)"""
    r"""|(?P<variable>\$[A-Za-z0-9_]*(?:\.[A-Za-z0-9_.]+)?)|(?P<field>\.[A-Za-z0-9_.]*)"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*))"""
)
_ACTION = re.compile(r"(\s*)\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}

Token = tuple[str, str]
Node = tuple[Any, ...]


def _fault(source: str, why: str) -> UsageError:
    return UsageError(f"template parsing error in {source!r}: {why}")


def _tokens(text: str) -> list[Token]:
    found: list[Token] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise _fault(text, f"unexpected {text[position:].strip()[:10]!r}")
        kind = str(match.lastgroup)
        found.append((kind, match[kind]))
        position = match.end()
    return found


def _unquote(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1])


class Template:
    r"""A parsed template.

    Args:
        source: as the user wrote it; ``\\t`` and ``\\n`` outside of actions are understood.

    Raises:
        UsageError: it cannot be read.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        parts = list(self._split(source))
        self._nodes, rest = self._block(parts, 0, ())
        if rest < len(parts):
            raise _fault(source, "unexpected {{" + parts[rest][1] + "}}")

    @staticmethod
    def _split(source: str) -> Iterator[Node]:
        position = 0
        trim = False
        for match in _ACTION.finditer(source):
            text = source[position : match.start()]
            text = text if match[2] else text + match[1]
            text = text.rstrip() if match[2] else text
            yield ("text", text.lstrip() if trim else text)
            yield ("action", match[3])
            position, trim = match.end(), bool(match[4])
        text = source[position:]
        if "{{" in text:
            raise _fault(source, "unclosed action")
        yield ("text", text.lstrip() if trim else text)

    def _block(
        self, parts: Sequence[Node], index: int, ends: tuple[str, ...]
    ) -> tuple[list[Node], int]:
        nodes: list[Node] = []
        while index < len(parts):
            kind, text = parts[index]
            word = text.split(None, 1)[0] if kind == "action" and text else ""
            if kind == "text":
                nodes.append(("text", text.replace("\\t", "\t").replace("\\n", "\n")))
            elif word in ("end", "else"):
                if not ends:
                    raise _fault(self.source, f"unexpected {{{{{text}}}}}")
                return nodes, index
            elif word in ("if", "with", "range"):
                node, index = self._nested(parts, index, word, text[len(word) :])
                nodes.append(node)
            elif not text.startswith("/*"):
                nodes.append(self._pipeline_node(text))
            index += 1
        if ends:
            raise _fault(self.source, "unexpected EOF: an {{end}} is missing")
        return nodes, index

    def _nested(self, parts: Sequence[Node], index: int, word: str, head: str) -> tuple[Node, int]:
        body, index = self._block(parts, index + 1, ("end", "else"))
        other: list[Node] = []
        text = parts[index][1]
        if text.startswith("else"):
            condition = text[4:].strip()
            if condition:  # else if: a nested action that shares our end
                kind = condition.split(None, 1)[0]
                node, index = self._nested(parts, index, kind, condition[len(kind) :])
                other = [node]
            else:
                other, index = self._block(parts, index + 1, ("end",))
        return (word, self._pipeline_node(head), body, other), index

    def _pipeline_node(self, text: str) -> Node:
        tokens = _tokens(text)
        if not tokens:
            raise _fault(self.source, "missing value for command")
        names: list[str] = []
        if any(kind == "assign" for kind, _ in tokens):
            while tokens[0][0] in ("variable", "comma"):
                kind, name = tokens.pop(0)
                if kind == "variable":
                    names.append(name)
            tokens.pop(0)
        pipeline, rest = self._pipeline(tokens)
        if rest:
            raise _fault(self.source, f"unexpected {rest[0][1]!r}")
        return ("pipe", pipeline, names)

    def _pipeline(self, tokens: list[Token]) -> tuple[list[list[Node]], list[Token]]:
        commands: list[list[Node]] = [[]]
        while tokens and tokens[0][0] != "close":
            kind, text = tokens[0]
            tokens = tokens[1:]
            if kind == "pipe":
                commands.append([])
            elif kind == "open":
                inner, tokens = self._pipeline(tokens)
                if not tokens:
                    raise _fault(self.source, "unclosed left paren")
                commands[-1].append(("paren", inner, tokens[0][1][1:]))
                tokens = tokens[1:]
            else:
                commands[-1].append(self._operand(kind, text))
        if not all(commands):
            raise _fault(self.source, "missing value for command")
        return commands, tokens

    def _operand(self, kind: str, text: str) -> Node:
        if kind == "string":
            return ("value", _unquote(text))
        if kind == "number":
            return ("value", float(text) if "." in text else int(text))
        if kind == "word":
            if text in ("true", "false", "nil"):
                return ("value", {"true": True, "false": False, "nil": None}[text])
            if text not in FUNCTIONS:
                raise _fault(self.source, f"function {text!r} not defined")
        return (kind, text)

    def render(self, data: Any) -> str:
        """Return the text for one object: mappings, sequences and plain values."""
        out: list[str] = []
        self._run(self._nodes, data, {"$": data}, out)
        return "".join(out)

    def _run(self, nodes: Sequence[Node], dot: Any, names: dict[str, Any], out: list[str]) -> None:
        for node in nodes:
            if node[0] == "text":
                out.append(node[1])
            elif node[0] == "pipe":
                value = self._value(node[1], dot, names)
                if node[2]:
                    names[node[2][0]] = value
                else:
                    out.append(show(value))
            else:
                self._control(node, dot, names, out)

    def _control(self, node: Node, dot: Any, names: dict[str, Any], out: list[str]) -> None:
        word, (_, pipeline, variables), body, other = node
        value = self._value(pipeline, dot, names)
        inner = dict(names)
        if word == "range":
            pairs = list(_pairs(value))
            for key, item in pairs:
                if len(variables) == 2:
                    inner[variables[0]], inner[variables[1]] = key, item
                elif variables:
                    inner[variables[0]] = item
                self._run(body, item, inner, out)
            if not pairs:
                self._run(other, dot, inner, out)
            return
        if variables:
            inner[variables[0]] = value
        if not value or isinstance(value, Absent):
            self._run(other, dot, inner, out)
        else:
            self._run(body, value if word == "with" else dot, inner, out)

    def _value(self, pipeline: Sequence[Sequence[Node]], dot: Any, names: dict[str, Any]) -> Any:
        result: list[Any] = []
        for command in pipeline:
            kind, *rest = command[0]
            arguments = [self._single(node, dot, names) for node in command[1:]] + result
            if kind == "word":
                result = [self._call(str(rest[0]), arguments)]
            elif arguments:
                raise _fault(self.source, f"can't give argument to non-function {rest[0]}")
            else:
                result = [self._single(command[0], dot, names)]
        return result[0]

    def _call(self, name: str, arguments: list[Any]) -> Any:
        try:
            return FUNCTIONS[name](*arguments)
        except (TypeError, ValueError, LookupError) as error:
            raise UsageError(f"template: error calling {name}: {error}") from error

    def _single(self, node: Node, dot: Any, names: dict[str, Any]) -> Any:
        kind, content = node[0], node[1]
        if kind == "value":
            return content
        if kind == "word":
            return self._call(content, [])
        if kind == "field":
            return self._field(dot, content)
        if kind == "variable":
            name, _, path = content.partition(".")
            if name not in names:
                raise _fault(self.source, f"undefined variable {name!r}")
            return self._field(names[name], "." + path)
        return self._field(self._value(content, dot, names), node[2] or ".")

    def _field(self, value: Any, path: str) -> Any:
        for name in path.split("."):
            if not name:
                continue
            if isinstance(value, Mapping):
                value = value[name] if name in value else _unknown(value, name, self.source)
            elif value is None or isinstance(value, Absent):
                value = Absent()
            else:
                raise UsageError(
                    f"template: {self.source!r}: can't evaluate field {name} in {show(value)!r}"
                )
        return value


def _unknown(value: Mapping[str, Any], name: str, source: str) -> Any:
    """Fields of a command's own rows are fixed; maps of the API may lack a key."""
    if getattr(value, "fixed", False):
        known = ", ".join("." + key for key in value)
        raise UsageError(f"template: {source!r}: no field .{name} (known: {known})")
    for key in value:
        if key.lower() == name.lower():
            return value[key]
    return Absent()


def _pairs(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from sorted(value.items())
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from ((number, number) for number in range(value))
    elif value is not None and not isinstance(value, Absent):
        raise UsageError(f"template: range can't iterate over {show(value)}")
