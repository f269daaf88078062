"""What a search can be asked beside the query, k and the filter: written down once, for every method that searches."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypedDict

from psycopg.types.json import Jsonb

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.search.filter import plain

MOST_ROWS = 10_000


class SearchOptions(TypedDict, total=False):
    """Options of `Collection.search` and its kin (SQL: the parameters of `pgvec.search`).

    Attributes:
        space: the vector space to search; the collection's default one if not given.
        recall: another target than the default one, of those that `tune` has tuned for; 1 is exact.
        ef_search: instead of the tuned setting of the index (probes, for IVFFlat).
        oversampling: how many times k candidates are rescored, of a halfvec, binary or prefix index.
        exact: use no index; the result is then complete beyond doubt.
        where_sql: a condition in SQL on the chunk table d, with values as `($3 ->> 'name')` from `parameters`.
            It becomes part of the statement: never put text of strangers into it.
        parameters: the values of `where_sql`.
        exclude: ids to leave out; those of earlier pages, for example.
        within: the largest distance.
        min_similarity: the smallest similarity; the same threshold in other words.
        group_by: "document" or a typed column: the nearest of each of the k nearest groups.
        group_size: how many of each group; default 1.
        diversity: 0 (as near as possible) to 1 (as unlike each other as possible), by maximal marginal relevance.
    """

    space: str | None
    recall: float | None
    ef_search: int | None
    oversampling: float | None
    exact: bool
    where_sql: str | None
    parameters: Mapping[str, Any] | None
    exclude: Sequence[str] | None
    within: float | None
    min_similarity: float | None
    group_by: str | None
    group_size: int | None
    diversity: float | None


class KeywordOptions(TypedDict, total=False):
    """Options of keyword searches.

    Attributes:
        where_sql: as in `SearchOptions`.
        parameters: the values of `where_sql`.
        exclude: ids to leave out.
        k1: how much more a word says the more often it occurs, if not as the keyword index has it.
        b: how much the length of a chunk counts, 0 to 1, likewise.
    """

    where_sql: str | None
    parameters: Mapping[str, Any] | None
    exclude: Sequence[str] | None
    k1: float | None
    b: float | None


class HybridOptions(KeywordOptions, total=False):
    """Options of hybrid searches.

    Attributes:
        recall: as in `SearchOptions`, of the legs that are vector spaces.
    """

    recall: float | None


# Those whose values are parameters of the statement: its text depends on whether they are given only.
_BOUND = ("exclude", "within", "min_similarity")


def check_options(k: int, options: Mapping[str, Any], name: str = "k") -> None:
    """Refuse what no statement could be made of; the server checks the rest."""
    unknown = options.keys() - SearchOptions.__annotations__.keys()
    if unknown:
        raise ConfigurationError(
            f"unknown search option {sorted(unknown)[0]!r}: there are {', '.join(SearchOptions.__annotations__)}"
        )
    if isinstance(k, bool) or not hasattr(k, "__index__") or not 1 <= k <= MOST_ROWS:
        raise ConfigurationError(f"{name} must be from 1 to {MOST_ROWS}, not {k}")
    if options.get("parameters") is not None and options.get("where_sql") is None:
        raise ConfigurationError("parameters are the values of where_sql: give that, too")
    if isinstance(options.get("exclude"), str):
        raise ConfigurationError("exclude is a list of ids, not one text")


def text_key(k: int, options: Mapping[str, Any]) -> Hashable:
    """Return what decides, together with the shape of the filter, the text of a search statement."""
    if not options:
        return k
    return k, *sorted(
        (name, value is not None if name in _BOUND else value)
        for name, value in options.items()
        if value is not None and name != "parameters"
    )


def sql_arguments(k: int, filter: Any, options: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return named arguments of `pgvec.search` and its kin, as SQL with placeholders and their values.

    Names of options become part of the SQL: none gets in that is not one of ours.
    """
    check_options(k, options)
    casts = {"ef_search": "::integer", "group_size": "::integer", "exclude": "::text[]"}
    casts |= dict.fromkeys(("recall", "oversampling", "within", "min_similarity", "diversity"), "::double precision")
    given = {name: value for name, value in options.items() if value is not None}
    if "parameters" in given:
        given["parameters"] = Jsonb(plain(given["parameters"]))
    if "exclude" in given:
        given["exclude"] = list(given["exclude"])
    if filter is not None:
        given["filter"] = Jsonb(filter)
    named = [f"{name} => %s{casts.get(name, '')}" for name in given]
    return ", ".join(["k => %s::integer", *named]), [k, *given.values()]


def bound_values(filter: Any, options: Mapping[str, Any]) -> list[Any]:
    """Return $2 and what follows, as far as it is needed; each has a type, even if the statement does not use it."""
    within, exclude, parameters = options.get("within"), options.get("exclude"), options.get("parameters")
    threshold = options.get("min_similarity") if within is None else within
    values: list[Any] = [
        None if filter is None else Jsonb(filter),
        None if parameters is None else Jsonb(plain(parameters)),
        None if exclude is None else list(exclude),
        None if threshold is None else float(threshold),
    ]
    if options.get("where_sql") is not None and values[1] is None:
        values[1] = Jsonb(None)  # the statement names it
    while values and values[-1] is None:
        values.pop()
    return [0 if value is None else value for value in values]
