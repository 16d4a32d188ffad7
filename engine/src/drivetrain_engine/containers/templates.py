"""Templates of log tags, such as ``{{.ImageName}}/{{.Name}}``: Go's syntax, its common part.

``{{.Field}}``, ``{{func .Field}}``, pipes, parentheses, and quoted strings as arguments. Functions:
``json``, ``split``, ``join``, ``title``, ``lower``, ``upper``, ``pad``, ``truncate``, ``println``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from drivetrain.errors import InvalidArgument
from drivetrain.options import closest

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.S)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|\||\.?[A-Za-z_][\w.]*|-?\d+|\S')

Value = str | int | list[str]


def _pad(text: Value, before: Value, after: Value) -> str:
    return str(text) if text == "" else " " * int(str(before)) + str(text) + " " * int(str(after))


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "json": lambda value: json.dumps(value),
    "split": lambda text, separator: str(text).split(str(separator)),
    "join": lambda parts, separator: str(separator).join(parts),
    "title": lambda text: str(text).title(),
    "lower": lambda text: str(text).lower(),
    "upper": lambda text: str(text).upper(),
    "pad": _pad,
    "truncate": lambda text, length: str(text)[: int(length)],
    "println": lambda text: f"{text}\n",
}


def render(owner: str, template: str, variables: Mapping[str, str]) -> str:
    """Fill a template in.

    Args:
        owner: whose template it is, for messages.
        template: the text.
        variables: values by name, without the dot.

    Raises:
        InvalidArgument: bad syntax, or an unknown variable or function, named.
    """
    if template.count("{{") != len(_ACTION.findall(template)):
        raise InvalidArgument(f"{owner}: the template {template!r} has an unclosed action")
    return _ACTION.sub(lambda match: _action(owner, match[1], variables), template)


def _action(owner: str, text: str, variables: Mapping[str, str]) -> str:
    tokens = _TOKEN.findall(text)
    value = _pipeline(owner, text, tokens, variables)
    if tokens:
        raise InvalidArgument(f"{owner}: the template action {text!r} has a ) too many")
    return " ".join(value) if isinstance(value, list) else str(value)


def _pipeline(owner: str, text: str, tokens: list[str], variables: Mapping[str, str]) -> Value:
    """Take tokens away up to the end, or a closing parenthesis, and return what they mean."""
    value: Value | None = None
    ended = False
    while not ended:
        head = ""
        arguments: list[Value] = []
        while not (ended := not tokens or tokens[0] == ")") and (token := tokens.pop(0)) != "|":
            if token == "(":
                arguments.append(_pipeline(owner, text, tokens, variables))
                if not tokens or tokens.pop(0) != ")":
                    raise InvalidArgument(f"{owner}: the template action {text!r} lacks a )")
            elif not head and not arguments:
                head = token
            else:
                arguments.append(_value(owner, token, variables))
        if not head and not arguments:
            raise InvalidArgument(f"{owner}: the template action {text!r} is incomplete")
        value = _command(owner, head, arguments, variables, value)
    assert value is not None
    return value


def _command(
    owner: str, head: str, arguments: list[Value], variables: Mapping[str, str], piped: Value | None
) -> Value:
    if head in FUNCTIONS:
        if piped is not None:
            # Go puts what is piped last; the functions here take the subject first.
            arguments.append(piped)
        if head in ("split", "join", "truncate") and piped is not None and len(arguments) == 2:
            arguments.reverse()
        try:
            return FUNCTIONS[head](*arguments)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"{owner}: the template function {head}: {error}") from None
    if not head and len(arguments) == 1 and piped is None:
        return arguments[0]
    if arguments or piped is not None:
        hint = closest(head, list(FUNCTIONS))
        raise InvalidArgument(f"{owner}: unknown template function {head!r}{hint}")
    return _value(owner, head, variables)


def _value(owner: str, token: str, variables: Mapping[str, str]) -> Value:
    if token[0] == '"':
        return str(json.loads(token))
    if token[0] == "`":
        return token[1:-1]
    if re.fullmatch(r"-?\d+", token):
        return int(token)
    name = token.removeprefix(".")
    if token.startswith(".") and name in variables:
        return variables[name]
    raise InvalidArgument(
        f"{owner}: unknown template variable {token!r}{closest(name, list(variables))}"
    )
