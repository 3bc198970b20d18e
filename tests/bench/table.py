"""What a benchmark gives: candidates measured in the same run, the first of them the peer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing measured: a sample per round, and what else is worth knowing."""

    name: str
    samples: Sequence[float]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """Candidates with the same unit; ratios are to the first, the peer."""

    title: str
    unit: str
    candidates: Sequence[Candidate]
    columns: Sequence[str] = ()  # of the notes
    remark: str = ""


def show(results: Iterable[Result]) -> None:
    """Prints each result as soon as it is there."""
    console = Console(width=None if Console().is_terminal else 130)
    for result in results:
        table = Table("", result.unit, "least - most", "to peer", *result.columns)
        table.title, table.title_justify = result.title, "left"
        peer = median(result.candidates[0].samples)
        for one in result.candidates:
            middle = median(one.samples)
            spread = f"{_short(min(one.samples))} - {_short(max(one.samples))}"
            table.add_row(one.name, _short(middle), spread, f"{middle / peer:.3g}", *one.notes)
        console.print(table)
        if result.remark:
            console.print(result.remark, end="\n\n", highlight=False)


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
