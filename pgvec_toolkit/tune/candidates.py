"""The forms of index that an advisor compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.schema.index_specs import Form, Hnsw, IndexSpec, index_form, index_spec

if TYPE_CHECKING:
    from pgvec_toolkit.schema.space import Space

_BINARY_FROM = 512  # dimensions: of fewer, the signs tell too little


@dataclass(frozen=True)
class Candidate:
    """An index, as `create_index` takes it.

    Attributes:
        method: hnsw or ivfflat.
        form: full, halfvec, binary or prefix.
        prefix: dimensions of the form prefix.
        m: of hnsw.
        ef_construction: of hnsw.
        lists: of ivfflat; None: from the number of rows.
    """

    method: str
    form: str
    prefix: int | None = None
    m: int | None = None
    ef_construction: int | None = None
    lists: int | None = None

    @classmethod
    def of(cls, space: Space, arguments: Mapping[str, Any]) -> Candidate:
        """Return the candidate of some arguments of `create_index`, checked, its defaults filled in.

        Raises:
            ConfigurationError: there is no such index of this space.
        """
        unknown = set(arguments) - set(cls.__dataclass_fields__)
        if unknown:
            raise ConfigurationError(
                f"a candidate has no {sorted(unknown)[0]!r}: it is made of {', '.join(cls.__dataclass_fields__)}"
            )
        method = arguments.get("method", "hnsw")
        prefix, lists = arguments.get("prefix"), arguments.get("lists")
        spec = index_spec(method, m=arguments.get("m"), ef_construction=arguments.get("ef_construction"), lists=lists)
        form = index_form(space, arguments.get("form"), prefix, method)
        if isinstance(spec, Hnsw):
            return cls(method, form.name, prefix, m=spec.m, ef_construction=spec.ef_construction)
        return cls(method, form.name, prefix, lists=lists)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `create_index`."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def name(self) -> str:
        """What it is called in tables: hnsw 24/200 halfvec."""
        size = f" {self.m}/{self.ef_construction}" if self.method == "hnsw" else f" {self.lists}" * bool(self.lists)
        return f"{self.method}{size} {self.form}{'' if self.prefix is None else f' {self.prefix}'}"

    @property
    def is_default(self) -> bool:
        """Whether pgvector builds it when no parameter is named."""
        return (self.method, self.m, self.ef_construction, self.prefix) == ("hnsw", 16, 64, None)

    @property
    def spec(self) -> IndexSpec:
        """Its method and parameters."""
        return index_spec(self.method, m=self.m, ef_construction=self.ef_construction, lists=self.lists)

    def held(self, space: Space) -> Form:
        """Return what it holds of each vector."""
        return index_form(space, self.form, self.prefix)

    def create_sql(self, space: Space, name: str, rows: int) -> str:
        """Return the statement that builds it under a name for so many rows, others reading and writing meanwhile."""
        options = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(key), sql.Literal(value))
            for key, value in self.spec.options(rows).items()
        )
        statement = sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} USING {} ({}) WITH ({})").format(
            sql.Identifier(name), space.vectors, sql.Identifier(self.method), self.held(space).indexed(space), options
        )
        return statement.as_string()


def default_candidates(space: Space) -> list[Candidate]:
    """Return what is worth comparing for a space, pgvector's default first: it is what the others are measured by."""
    form = index_form(space).name
    wanted: list[dict[str, Any]] = [
        {"form": form, "m": 16, "ef_construction": 64},
        {"form": form, "m": 16, "ef_construction": 200},
        {"form": form, "m": 24, "ef_construction": 200},
    ]
    if form != "halfvec":
        wanted += [{"form": "halfvec", "m": m, "ef_construction": 200} for m in (16, 24)]
    if form != "binary" and space.dimensions >= _BINARY_FROM:
        wanted.append({"form": "binary", "m": 24, "ef_construction": 200})
    wanted.append({"method": "ivfflat", "form": form})
    found = []
    for arguments in wanted:
        try:
            found.append(Candidate.of(space, arguments))
        except ConfigurationError:
            continue  # not every type of vector has every form
    return found


def chosen_candidates(space: Space, given: Sequence[Mapping[str, Any]] | None) -> list[Candidate]:
    """Return the candidates that were asked for, or the default ones."""
    if given is None:
        return default_candidates(space)
    if isinstance(given, Mapping | str) or not given:
        raise ConfigurationError('candidates is a list of arguments of create_index, as [{"m": 24, "form": "halfvec"}]')
    return list(dict.fromkeys(Candidate.of(space, arguments) for arguments in given))
