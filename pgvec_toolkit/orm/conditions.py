"""What a statement asks for beside the nearest: how many rows, and which ones."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import BindParameter, FromClause, Select
from sqlalchemy.sql.visitors import iterate

from pgvec_toolkit.errors import ConfigurationError
from pgvec_toolkit.orm.mapped import VectorColumn
from pgvec_toolkit.orm.nearest import is_marked

_Statement = TypeVar("_Statement", bound="Select[*tuple[Any, ...]]")


def wanted(statement: Select[Any]) -> int | None:
    """Return how many rows a statement needs in order, those before its offset included; None if it does not say."""
    numbers = []
    for clause in (statement._limit_clause, statement._offset_clause):
        if clause is not None and not isinstance(clause, BindParameter):
            return None
        numbers.append(0 if clause is None else int(clause.effective_value or 0))
    limit, offset = numbers
    return limit + offset if limit else None


def is_filtered(statement: Select[Any], searched: VectorColumn) -> bool:
    """Whether a statement may leave out rows of the table that have a vector."""
    return (
        searched.is_narrowed
        or bool(statement._setup_joins or statement._from_obj)
        or any(not is_marked(criterion) for criterion in statement._where_criteria)
        or any(_is_criteria(option) for option in statement._with_options)
    )


def bare(statement: _Statement) -> _Statement:
    """Return a copy of a statement of which nothing is left but its rows and the user's conditions."""
    copy = statement.order_by(None).limit(None).offset(None)
    copy._with_options = tuple(option for option in copy._with_options if _is_criteria(option))
    copy._where_criteria = tuple(criterion for criterion in copy._where_criteria if not is_marked(criterion))
    copy._for_update_arg = None
    return copy


def check_names(statement: Select[Any]) -> None:
    """Refuse conditions in which the row that they are about, d, would be taken for something else."""
    for source in statement.get_final_froms():
        if any(isinstance(part, FromClause) and getattr(part, "name", None) == "d" for part in iterate(source)):
            raise ConfigurationError(
                "in a search, d is the row that is looked at: call the table or its alias otherwise"
            )


def _is_criteria(option: Any) -> bool:
    return bool(getattr(option, "_is_criteria_option", False))
