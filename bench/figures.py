"""What was measured: each figure with all its repetitions, and the ratios between figures of the same round."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any


@dataclass
class Figure:
    """One thing measured several times, in the order in which it was measured."""

    title: str
    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def most(self) -> float:
        return max(self.values)


class Figures:
    """All figures of a run by their key, such as `http.engine.64`."""

    def __init__(self) -> None:
        self.by_key: dict[str, Figure] = {}
        # What could not be measured, and why.
        self.absent: dict[str, str] = {}

    def add(self, key: str, title: str, unit: str, *values: float) -> None:
        self.by_key.setdefault(key, Figure(title, unit)).values.extend(values)

    def add_ratio(self, key: str, title: str, numerator: str, denominator: str) -> None:
        """The ratio of two figures, round by round; nothing if one of them was not measured."""
        if numerator in self.by_key and denominator in self.by_key:
            above, below = self.by_key[numerator].values, self.by_key[denominator].values
            ratios = [over / under for over, under in zip(above, below, strict=False)]
            self.by_key[key] = Figure(title, "", ratios)

    def median(self, key: str) -> float | None:
        return self.by_key[key].median if key in self.by_key else None

    def as_json(self) -> dict[str, Any]:
        return {
            key: {
                **asdict(figure),
                "values": [_rounded(value) for value in figure.values],
                "median": _rounded(figure.median),
                "min": _rounded(figure.least),
                "max": _rounded(figure.most),
            }
            for key, figure in sorted(self.by_key.items())
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: a value that was measured, at or above `percent` of all of them."""
    if not values:
        raise ValueError("nothing was measured")
    return sorted(values)[max(ceil(len(values) * percent / 100), 1) - 1]


def _rounded(value: float) -> float:
    """To four significant digits: the rest is noise."""
    return float(f"{value:.4g}")
