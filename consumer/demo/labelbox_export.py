"""Export jobs of a simulated Labelbox: which rows a search query names, and the job's file.

The query's forms are those that the vendor's SDK sends; one that is not known is refused, because
a filter that is ignored exports too much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from consumer.demo.labelbox_rows import DONE, Details, SimulatedRow

MAX_IDS = 2_000  # of one filter
PARAMS = {
    "attachments": "includeAttachments",
    "metadata_fields": "includeMetadata",
    "data_row_details": "includeDataRowDetails",
    "project_details": "includeProjectDetails",
    "label_details": "includeLabelDetails",
    "performance_details": "includePerformanceDetails",
}

Wanted = Callable[[SimulatedRow], bool]


class Refused(Exception):
    """A GraphQL error for the client; ``code`` stands in its extensions."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class ExportJob:
    """A job as its creator can poll it; ``polls_left`` polls still say IN_PROGRESS."""

    id: str
    created_at: datetime
    lines: list[bytes]
    polls_left: int
    failed: bool
    errors: list[bytes]
    lines_lost: int = 0  # that the header counts all the same

    @property
    def status(self) -> str:
        if self.polls_left > 0:
            return "IN_PROGRESS"
        return "FAILED" if self.failed else "COMPLETE"

    def stream(self, stream_type: str) -> list[bytes]:
        return self.errors if stream_type == "ERRORS" else self.lines


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a job's file: bytes ``start`` to ``end`` and the lines it touches, inclusive."""

    start: int
    end: int
    first_line: int
    last_line: int
    data: bytes


def piece_at(lines: list[bytes], offset: int, limit: int) -> Piece | None:
    """The piece of at most ``limit`` bytes at ``offset``; None past the end. A line may begin in
    one piece and end in the next."""
    file = b"".join(lines)
    data = file[offset : offset + limit]
    if not data:
        return None
    first = file.count(b"\n", 0, offset)
    return Piece(
        start=offset,
        end=offset + len(data) - 1,
        first_line=first,
        last_line=first + data.count(b"\n", 0, len(data) - 1),
        data=data,
    )


def details(params: dict[str, Any]) -> Details:
    return Details(**{ours: bool(params.get(theirs)) for ours, theirs in PARAMS.items()})


def search(query: list[dict[str, Any]]) -> Wanted:
    """Whether a row is named by all the query's filters. Raises Refused."""
    filters = [_filter(one) for one in query]
    return lambda row: all(one(row) for one in filters)


def _filter(one: dict[str, Any]) -> Wanted:
    kind = one.get("type")
    if kind in ("data_row_id", "global_key"):
        ids = _ids(one)
        return lambda row: (row.id if kind == "data_row_id" else row.global_key) in ids
    if kind in ("data_row_last_activity_at", "labeled_at"):
        within = _range(one["value"])
        if kind == "labeled_at":
            return lambda row: any(within(label.created_at) for label in row.labels.values())
        return lambda row: within(row.active_at)
    if kind == "task_queue_not_exist":
        return lambda row: not row.labels
    if kind == "task_queue_status":
        return lambda row: workflow_status(row) == one.get("status")
    raise Refused("MALFORMED_REQUEST", f"unknown filter {kind}")


def workflow_status(row: SimulatedRow) -> str:
    if row.stage == DONE:
        return "Done"
    if row.stage.casefold().startswith("rework"):
        return "InRework"
    return "InReview" if "review" in row.stage.casefold() else "ToLabel"


def _ids(one: dict[str, Any]) -> frozenset[str]:
    ids = one.get("ids")
    if one.get("operator") != "is" or not isinstance(ids, list) or not ids:
        raise Refused("MALFORMED_REQUEST", "an id filter needs ids and the operator is")
    if len(ids) > MAX_IDS:
        raise Refused("MALFORMED_REQUEST", f"at most {MAX_IDS} ids")
    return frozenset(ids)


def _range(value: dict[str, Any]) -> Callable[[datetime], bool]:
    zone = value.get("timezone") or "UTC"
    bound = value["value"]
    match value["operator"]:
        case "BETWEEN":
            low, high = _moment(bound["min"], zone), _moment(bound["max"], zone)
            return lambda at: low <= at <= high
        case "GREATER_THAN_OR_EQUAL":
            low = _moment(bound, zone)
            return lambda at: at >= low
        case "LESS_THAN_OR_EQUAL":
            high = _moment(bound, zone)
            return lambda at: at <= high
    raise Refused("MALFORMED_REQUEST", "unknown operator")


def _moment(text: str, zone: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused("MALFORMED_REQUEST", "not a time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(zone))
    return moment.astimezone(UTC)
