"""Strict values: from text and mappings to frozen dataclasses, with nothing passed over."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from finemask.errors import UsageError

T = TypeVar("T")


def build(kind: type[T], values: Mapping[str, Any], subject: str) -> T:
    """Build a frozen dataclass from a mapping, strictly: names and types must fit.

    Raises:
        UsageError: On an unknown key or a value of the wrong type.
    """
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # T is a dataclass
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(
            subject,
            f"has the unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}",
            "correct or remove it",
        )
    return kind(**{k: _fit(v, hints[k], f"{subject}: {k}") for k, v in values.items()})


def _fit(value: Any, hint: Any, subject: str) -> Any:
    """Convert ``value`` to the annotated type where that loses nothing, or refuse."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if type(value) is hint:
            return value
        if isinstance(value, Mapping):
            return build(typing.cast(type, hint), value, subject)
    elif origin is Literal:
        if value in arguments:
            return value
        hint = " or ".join(map(str, arguments))
    elif origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_fit(v, arguments[0], subject) for v in items)
        if len(items) == len(arguments):
            return tuple(_fit(v, a, subject) for v, a in zip(items, arguments, strict=True))
    elif origin is Mapping:
        if isinstance(value, Mapping):
            return dict(value)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif hint is int and isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == int(value):
            return int(value)
    elif hint in (bool, str) and isinstance(value, hint):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise UsageError(subject, f"is {value!r}, needs {name}", "correct the value")


def check_ranges(section: str, settings: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse numbers outside ``(least, most)``, both included."""
    for key, (least, most) in ranges.items():
        value = getattr(settings, key)
        for number in value if isinstance(value, tuple) else (value,):
            if not least <= number <= most:
                wanted = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
                raise UsageError(f"{section}.{key}", f"is {number}, needs {wanted}", "change it")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, or say in one line why not."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(path, f"cannot be read ({error.strerror})", "check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(path, f"is not TOML ({error})", "correct the file") from error


def parse_value(text: str) -> Any:
    """A value from the command line: a TOML value, ``64x64``, ``1,2`` or a bare word.

    Example:
        >>> parse_value("1x2x2"), parse_value("1e-3"), parse_value("true"), parse_value("cosine")
        ([1, 2, 2], 0.001, True, 'cosine')
    """
    text = text.strip()
    for separator in ("x", ","):
        parts = text.split(separator)
        if len(parts) > 1 and all(_is_number(p) for p in parts):
            return [parse_value(p) for p in parts]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
