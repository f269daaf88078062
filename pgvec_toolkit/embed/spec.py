"""Specs: the texts that name an embedder, as `kind:source?option=value&option=value`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from pgvec_toolkit.errors import ConfigurationError

Reader = Callable[[str], Any]  # of an option's value; raises ValueError


def spec_of(prefix: str, source: str, options: Mapping[str, Any]) -> str:
    """Return the spec of an embedder; options that are None are left out."""
    given = {name: _written(value) for name, value in sorted(options.items()) if value is not None}
    return f"{prefix}{source}" + (f"?{urlencode(given, safe='/:', quote_via=quote)}" if given else "")


def located(name: str) -> str:
    """Return the absolute path of a folder, which other processes find as well; the name of what is none."""
    return os.path.abspath(name) if os.path.exists(name) else name


def parse_options(text: str, known: Mapping[str, Reader], spec: str) -> dict[str, Any]:
    """Read what follows the "?" of a spec."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in known:
            raise ConfigurationError(f"embedder {spec} has no option {name!r}: there are {', '.join(sorted(known))}")
        try:
            found[name] = known[name](value)
        except ValueError as error:
            raise ConfigurationError(f"embedder {spec}: {name}={value} {error}") from error
    return found


def flag(text: str) -> bool:
    """Read true or false."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise ValueError("is neither true nor false")


def count(text: str) -> int:
    """Read a positive whole number."""
    if not text.isdecimal() or not int(text):
        raise ValueError("is not a whole number of at least 1")
    return int(text)


def number(text: str) -> float:
    """Read a positive number."""
    try:
        found = float(text)
    except ValueError:
        found = 0
    if not 0 < found < float("inf"):
        raise ValueError("is not a number above 0")
    return found


def one_of(*choices: str) -> Reader:
    """Return what reads one of some words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return text

    return read


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
