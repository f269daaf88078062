"""What may be tuned for."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import Any

from pgvec_toolkit.errors import ConfigurationError, TuningError

FEWEST_QUERIES = 20


def checked_recalls(asked: Any) -> list[float]:
    """Return target recalls, of one or several; TuningError for what is no number above 0 and below 1."""
    targets = _several(asked)
    for target in targets:
        if not _is_number(target):
            raise TuningError(f"a target recall is a number, as 0.95, not {target!r}")
        if not 0 < target < 1:
            raise TuningError(
                f"the target recall must be above 0 and below 1, not {target}: only an exact scan reaches 1"
            )
    if not targets or len(set(targets)) < len(targets):
        raise TuningError("give one target recall or several, none of them twice")
    return [float(target) for target in targets]


def checked_ks(asked: Any) -> list[int]:
    """Return numbers of neighbours, of one or several; TuningError for what is no whole number from 1 to 999."""
    ks = _several(asked)
    for k in ks:
        if not _is_whole(k, 999):
            raise TuningError(f"k must be a whole number from 1 to 999, not {k!r}")
    if not ks or len(set(ks)) < len(ks):
        raise TuningError("give one k or several, none of them twice")
    return [int(k) for k in ks]


def check_tail_share(share: Any) -> None:
    """Raise TuningError for what is no share of the queries."""
    if share is not None and not (_is_number(share) and 0 < share <= 1):
        raise TuningError(f"tail_share must be a number above 0, at most 1, not {share!r}")


def check_sample(sample: Any) -> None:
    """Raise TuningError for what is no number of queries to draw."""
    if not _is_whole(sample, 2**31 - 1):
        raise TuningError(f"sample, the number of queries, must be a whole number from 1 on, not {sample!r}")


def check_measurable(k: Any, sample: Any) -> None:
    """Raise ConfigurationError, as `pgvec.recall` does, for what recall cannot be measured with."""
    if not _is_whole(k, 999) or not _is_whole(sample, 2**31 - 1):
        raise ConfigurationError(f"k must be from 1 to 999 and sample at least 1, not {k!r} and {sample!r}")


def check_count(queries: int) -> None:
    """Raise TuningError for too few queries."""
    if queries < FEWEST_QUERIES:
        raise TuningError(f"{queries} queries are too few to tune on: at least {FEWEST_QUERIES} are needed")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real)


def _is_whole(value: Any, most: int) -> bool:
    return _is_number(value) and 1 <= value <= most and int(value) == value


def _several(asked: Any) -> list[Any]:
    return list(asked) if isinstance(asked, Iterable) and not isinstance(asked, str) else [asked]
