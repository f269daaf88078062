"""What a pool of connections can be told: written down once, for every way to connect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from pgvec_toolkit.errors import ConfigurationError


class PoolOptions(TypedDict, total=False):
    """Options of `connect` and `connect_async`.

    Attributes:
        min_size: connections that the pool keeps open; default 0.
        max_size: connections that the pool opens at most; default 10.
        timeout: seconds to wait for a connection; default 30.
        max_idle: seconds until a connection beyond `min_size` that nobody uses is closed; default 600.
        max_lifetime: seconds until a connection is replaced by a new one; default 3600.
        prepare_threshold: how often a statement runs before it is prepared on the server; default 5, and those of
            searches are at once. None: never, and nothing is set on a session: for transaction pooling (pgbouncer).
    """

    min_size: int
    max_size: int
    timeout: float
    max_idle: float
    max_lifetime: float
    prepare_threshold: int | None


_DEFAULTS: PoolOptions = {"min_size": 0, "max_size": 10, "timeout": 30.0, "max_idle": 600.0, "max_lifetime": 3600.0}


def checked(options: PoolOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of the pool, and those of its connections; raises ConfigurationError of a bad value."""
    unknown = options.keys() - PoolOptions.__annotations__.keys()
    if unknown:
        raise ConfigurationError(
            f"unknown option {sorted(unknown)[0]!r} of a pool: there are {', '.join(PoolOptions.__annotations__)}"
        )
    pool: dict[str, Any] = {**_DEFAULTS, **options}
    connections = {name: pool.pop(name) for name in ("prepare_threshold",) if name in pool}
    for name, least in (("min_size", 0), ("max_size", 1)):
        _check_whole(name, pool[name], least)
    if pool["min_size"] > pool["max_size"]:
        raise ConfigurationError(f"min_size is {pool['min_size']}: more than max_size, which is {pool['max_size']}")
    for name in ("timeout", "max_idle", "max_lifetime"):
        _check_seconds(name, pool)
    if connections.get("prepare_threshold") is not None:
        _check_whole("prepare_threshold", connections["prepare_threshold"], 0)
    return pool, connections


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        never = ", or None" if name == "prepare_threshold" else ""
        raise ConfigurationError(f"{name} must be a whole number, at least {least}{never}, not {value!r}")


def _check_seconds(name: str, pool: Mapping[str, object]) -> None:
    value = pool[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigurationError(f"{name} is a number of seconds, more than 0, not {value!r}")
