"""What a verification found: values for a person and for a program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from consumer.errors import Permanent

_THE_OBJECTS_OWN = frozenset({"key-unsafe", "key-too-long", "key-collides", "object-too-large"})

MAX_FINDINGS = 1_000  # kept; more are counted


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be: where (a store key, and an entry's index), and what."""

    place: str
    problem: str
    entry: int | None = None

    def __str__(self) -> str:
        where = self.place if self.entry is None else f"{self.place}, entry {self.entry}"
        return f"{where}: {self.problem}"


class Findings:
    """Collects, within a limit."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.count = 0
        self.notes: list[str] = []
        self.ahead = 0  # tasks whose pointer the log does not tell of yet

    def add(self, place: str, problem: str, *, entry: int | None = None) -> None:
        self.count += 1
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(Finding(place, problem, entry))

    @contextmanager
    def told_of(self, place: str, *, entry: int | None = None) -> Iterator[None]:
        """Whatever an object, or its name, does to who looks at it is a finding like any other:
        the rest is looked at all the same. What the store cannot do is raised."""
        try:
            yield
        except Permanent as error:
            if error.reason not in _THE_OBJECTS_OWN:
                raise
            self.add(place, f"it cannot be read: {error.message}", entry=entry)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            self.add(place, f"it cannot be understood ({type(error).__name__})", entry=entry)

    def note(self, text: str) -> None:
        """Something to know that is no error."""
        if len(self.notes) < MAX_FINDINGS:
            self.notes.append(text)


@dataclass(frozen=True, slots=True)
class Counts:
    """What was looked at."""

    entries: int = 0
    tasks: int = 0
    revisions: int = 0
    files: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Verification:
    """The answer. ``origin_checked`` says that the signature was checked with a key from outside
    the store; without it, the log is at best consistent in itself.

    ``unreferenced`` are objects that nothing names: information, and only to be trusted (and
    removed) when ``ok``.
    """

    size: int
    root: str  # hex
    origin: str
    origin_checked: bool
    prefix_checked: int | None  # size of the older checkpoint that was given
    findings: tuple[Finding, ...]
    finding_count: int
    notes: tuple[str, ...] = ()
    unreferenced: tuple[str, ...] = ()
    counts: Counts = field(default_factory=Counts)
    ahead: int = 0  # tasks whose pointer the log does not tell of yet: nobody signed for it

    @property
    def ok(self) -> bool:
        return self.finding_count == 0

    @property
    def summary(self) -> str:
        """A sentence or two for a person."""
        return " ".join(self._sentences())

    def _sentences(self) -> Iterable[str]:
        counts = self.counts
        if not self.ok:
            plural = "" if self.finding_count == 1 else "s"
            yield f"NOT OK: {self.finding_count} finding{plural}."
        yield f"{self.size} entries, root {self.root[:16]}..., origin {self.origin or 'unknown'}."
        yield (
            f"Lake: {counts.tasks} tasks, {counts.revisions} revisions, {counts.files} files, "
            f"{counts.size_bytes} bytes."
        )
        if self.prefix_checked is not None and self.ok:
            yield f"It extends your checkpoint of {self.prefix_checked} entries."
        if self.ahead:
            yield f"{self.ahead} pointer(s) ahead of the log are not covered by it yet."
        if self.ok and self.origin_checked:
            rest = "Everything else" if self.ahead else "Everything"
            yield f"{rest} fits, and the key you gave signed it."
        elif self.ok:
            yield "Consistent in itself, origin not checked: give the public key with --key."
