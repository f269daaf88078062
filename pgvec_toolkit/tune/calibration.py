"""What searches cost on a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Calibration:
    """Costs of searches of one space, measured on its server (SQL: `pgvec.calibrate`).

    Attributes:
        exact_us: microseconds to fetch and compare one vector that is cached.
        exact_cold_us: the same at the first touch; near `exact_us` if all was cached.
        scan_us: microseconds of one step of the index setting (ef_search, probes); None without an index.
        gate: number of matches up to which a filtered search for 10 sorts them exactly; None without an index.
    """

    exact_us: float
    exact_cold_us: float
    scan_us: float | None
    gate: int | None
