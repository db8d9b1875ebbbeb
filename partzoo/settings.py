"""Read training settings from ``--set KEY=VALUE`` and recipe files, and check them against dataclasses."""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from partzoo.errors import UsageError

BARE = re.compile("[A-Za-z0-9_-]+")  # names that TOML takes without quotes
TABLES = ("task", "config", "loop", "data")
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", dict: "a table"}


def parse_settings(settings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parse ``KEY=VALUE`` strings into tables of settings.

    A key is ``config.NAME``, ``loop.NAME`` or ``data.NAME``; a bare ``NAME`` is a setting of the task. A value is read
    as TOML (``0.5``, ``false``, ``[1, 2]``); whatever is not valid TOML is a string, so strings need no quotes.

    Returns:
        Nested dictionary: table, then name, then value.

    Raises:
        UsageError: a setting has no ``=``.
    """
    tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting} is not KEY=VALUE, for example --set loop.lr=1e-4.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            value = text
        table, dot, name = key.strip().partition(".")
        if dot and table in TABLES[1:]:
            tables[table][name] = value
        else:
            tables["task"][key.strip()] = value
    return tables


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """List the names whose values differ, each with both values; a value that is missing is None."""
    names = {**before, **after}
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def types_of(kind: type | Callable) -> dict[str, Any]:
    """Return the annotations of a dataclass's fields, or of the keyword-only parameters of a function or class."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return {field.name: hints[field.name] for field in fields(kind)}
    hints = get_type_hints(kind.__init__ if inspect.isclass(kind) else kind)
    return {name: hints[name] for name in named(kind)}


def named(kind: type | Callable) -> dict[str, Any]:
    """Return the defaults of the keyword-only parameters of a function or class, by name."""
    parameters = inspect.signature(kind).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def check_tables(
    what: str, given: Mapping[str, Mapping[str, Any]], types: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Check the keys and types of settings, and convert lists to tuples.

    Args:
        what: name of the method, for messages.
        given: nested dictionary of settings: table, then name, then value.
        types: nested dictionary of annotations: table, then name, then annotation.

    Raises:
        UsageError: a key is unknown (the message suggests the closest and lists all), or a value has the wrong type.
    """
    keys = [_key(table, name) for table in TABLES for name in types[table]]
    for table in TABLES:
        for name in given[table]:
            if name not in types[table]:
                key = _key(table, name)
                close = difflib.get_close_matches(key, keys, n=1) or [k for k in keys if k.endswith(f".{key}")]
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise UsageError(f"{what} has no setting {key!r}.{hint} Its settings are {', '.join(keys)}.")
    return {
        table: {name: checked(_key(table, name), value, types[table][name]) for name, value in given[table].items()}
        for table in TABLES
    }


def checked(key: str, value: Any, kind: Any) -> Any:
    """Convert a value to the annotation ``kind``: lists become tuples, and integers become floats if necessary.

    Raises:
        UsageError: the value has a different type.
    """
    try:
        return _as(value, kind)
    except TypeError as error:
        raise UsageError(f"{key}={value!r:.80} must be {_said(kind)}.") from error


def _key(table: str, name: str) -> str:
    return name if table == "task" else f"{table}.{name}"


def _as(value: Any, kind: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for each in arguments:
            try:
                return _as(value, each)
            except TypeError:
                continue
        raise TypeError(value)
    if origin is Literal:
        right = value in arguments and type(value) in map(type, arguments)
    elif origin in (tuple, list, Sequence):
        if not isinstance(value, (list, tuple)):
            raise TypeError(value)
        if origin is tuple and arguments[-1] is not Ellipsis:
            if len(value) != len(arguments):
                raise TypeError(value)
            return tuple(map(_as, value, arguments))
        return tuple(_as(each, arguments[0]) for each in value)
    elif origin is dict:
        right = isinstance(value, dict) and all(isinstance(name, str) for name in value)
    elif kind is float:
        if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        right = isinstance(value, float) and not math.isnan(value)
    elif kind is None or kind is NoneType:
        right = value is None
    elif kind is Any:
        right = True
    else:
        right = type(value) is kind
    if not right:
        raise TypeError(value)
    return value


def _said(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        *some, last = map(repr, arguments)
        return f"{', '.join(some)} or {last}" if some else last
    if origin in (Union, UnionType):
        return " or ".join(_said(each) for each in arguments if each is not NoneType)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}, each {_said(arguments[0])}"
    if origin in (tuple, list, Sequence):
        return f"a list, each {_said(arguments[0])}"
    return WORDS.get(origin or kind, str(kind))


def to_toml(values: Mapping[str, Any]) -> str:
    """Write values and tables of values as TOML; entries that are None are left out."""
    lines = _lines({name: value for name, value in values.items() if not isinstance(value, Mapping)})
    for table, content in values.items():
        if isinstance(content, Mapping) and content:
            lines += ["", f"[{table}]", *_lines(content)]
    return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, Any]) -> list[str]:
    named = {name if BARE.fullmatch(name) else _toml(name): value for name, value in values.items()}
    return [f"{name} = {_toml(value)}" for name, value in named.items() if value is not None]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"[{', '.join(map(_toml, value))}]"
