"""What Labelbox tells of its data rows: what is asked of it, and what is made of the answer."""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from consumer.demo.labelbox import Fault
from consumer.download import Downloader
from consumer.errors import Permanent, Transient
from consumer.platforms.labelbox_export import Exports
from consumer.platforms.labelbox_graphql import GraphQL
from consumer.platforms.labelbox_sightings import Listing, search_query, sighting_of
from consumer.sightings import Sighting, Window
from tests.faults.platform_peers import ids, peer
from tests.loopback import LOOPBACK

AT = "2026-01-05T09:00:00.500000Z"
LONGEST = 100_000  # bytes of a row
LATER = "2026-01-06T09:00:00.500000Z"


def _value(query: list[dict[str, Any]]) -> dict[str, Any]:
    (one,) = query
    value: dict[str, Any] = one["value"]
    return value


def test_an_open_window_names_all_rows() -> None:
    assert search_query(Window()) == []


def test_bounds_are_utc_and_widened_to_whole_seconds() -> None:
    (one,) = search_query(Window(since=AT))
    assert one == {
        "type": "data_row_last_activity_at",
        "value": {
            "operator": "GREATER_THAN_OR_EQUAL",
            "timezone": "UTC",
            "value": "2026-01-05T09:00:00+0000",
        },
    }
    assert _value(search_query(Window(until=AT)))["value"] == "2026-01-05T09:00:01+0000"
    both = _value(search_query(Window(label_since=AT, label_until=LATER)))
    assert both["operator"] == "BETWEEN"
    assert both["value"] == {
        "min": "2026-01-05T09:00:00+0000", "max": "2026-01-06T09:00:01+0000",
    }  # fmt: skip


def test_activity_and_labels_are_asked_for_together() -> None:
    kinds = [one["type"] for one in search_query(Window(since=AT, label_since=AT))]
    assert kinds == ["data_row_last_activity_at", "labeled_at"]


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_window_of_labels_tells_the_rows_that_have_one_within(legacy: bool) -> None:
    async with peer("labelbox", legacy=legacy) as platform:
        early, _, late = platform.create(), platform.create(), platform.create()
        platform.label(early)
        platform.create()
        middle = await platform.platform.now()
        platform.label(late)
        assert ids(await platform.listed(Window(label_since=middle))) == {late}
        assert ids(await platform.listed(Window(label_until=middle))) == {early}


async def test_no_more_is_asked_for_than_a_sighting_needs() -> None:
    async with peer("labelbox") as platform:
        platform.finished()
        asked: list[Any] = []
        start = platform.simulated.start_export
        platform.simulated.start_export = lambda request: (asked.append(request), start(request))[1]
        await platform.listed()
    (params,) = [one["params"] for one in asked]
    assert {name for name, on in params.items() if on} == {
        "includeDataRowDetails", "includeProjectDetails", "includeLabelDetails",
        "includePerformanceDetails",  # whether a label was skipped
    }  # fmt: skip
    assert not platform.simulated.counters["mask GET"]


async def test_several_labels_of_one_legacy_row_are_one_sighting() -> None:
    async with peer("labelbox", legacy=True) as platform:
        row = platform.create()
        platform.simulated.label(row, [], by="a@example.com")
        platform.simulated.label(row, [], by="b@example.com")
        (seen,) = await platform.listed()
    assert (seen.task, len(seen.label_created_at or ())) == (row, 2)
    assert not platform.simulated.counters["frames GET"]


async def test_a_project_without_rows_is_no_error() -> None:
    async with peer("labelbox") as platform:
        assert await platform.listed() == []


# what is not whole


async def test_fewer_rows_than_the_job_counts_are_an_error() -> None:
    await _fails("export-incomplete", Fault("line-lost"))


async def test_a_job_that_fails_is_an_error() -> None:
    await _fails("export-failed", Fault("failed-task"))


async def test_errors_beside_the_rows_are_an_error() -> None:
    async with peer("labelbox") as platform:
        platform.create()
        platform.simulated.export_errors = [b'{"data_row": "x"}\n']
        with pytest.raises(Transient) as raised:
            await platform.listed()
    assert raised.value.reason == "export-incomplete"


async def test_a_project_that_cannot_be_read_is_an_error() -> None:
    async with peer("labelbox") as platform:
        with pytest.raises(Transient) as raised:
            [page async for page in platform.platform.changed_since("elsewhere", Window())]
    assert raised.value.reason == "project-unreadable"


async def _fails(reason: str, fault: Fault) -> None:
    async with peer("labelbox") as platform:
        for _ in range(2):
            platform.create()
        platform.simulated.faults.order("export", fault, times=9)
        with pytest.raises(Transient) as raised:
            await platform.listed()
    assert raised.value.reason == reason


async def test_a_rate_limit_in_the_middle_is_waited_for_and_nothing_begun_anew() -> None:
    async with peer("labelbox") as platform:
        held = {platform.create() for _ in range(9)}
        platform.simulated.chunk_bytes = 700
        platform.simulated.faults.order("export offset", Fault("status", 503), times=2)
        platform.simulated.faults.order("export file GET", Fault("status", 429, retry_after="33"))
        assert ids(await platform.listed()) == held
    assert platform.slept == [1.0, 4.0, 33.0]
    assert platform.simulated.counters["export"] == 1


async def test_a_piece_whose_url_expired_is_asked_for_anew() -> None:
    async with peer("labelbox") as platform:
        row = platform.create()
        for status in (400, 410):
            platform.simulated.faults.order("export file GET", Fault("status", status))
        assert ids(await platform.listed()) == {row}
    assert platform.simulated.counters["export offset"] == 3
    assert platform.slept == []


# rows of another kind


def _row(**of: Any) -> dict[str, Any]:
    entry = {"labels": [], "project_details": {"workflow_history": []}}
    return {"data_row": {"id": "r"}, "projects": {"p": entry}, **of}


@pytest.mark.parametrize(
    "row",
    [
        _row(projects=None),
        _row(projects={"p": {"labels": 3, "project_details": {}}}),
        _row(projects={"p": {"labels": [{"id": 3}], "project_details": {}}}),
        _row(projects={"p": {"labels": [], "project_details": {"workflow_history": "x"}}}),
        _row(projects={"p": {"labels": [], "project_details": {"workflow_history": [{}]}}}),
        _row(projects={"other": {}}),
        {"DataRow ID": "r", "DataRow Workflow Info": 3},
    ],
)
def test_a_row_that_cannot_be_read_is_told_by_its_id(row: dict[str, Any]) -> None:
    assert sighting_of([row], "p") == Sighting("r")


@pytest.mark.parametrize("task", [None, "", 3, "x" * 201, "a\nb"])
def test_a_row_without_an_id_is_an_error(task: object) -> None:
    with pytest.raises(Transient):
        sighting_of([_row(data_row={"id": task})], "p")


def test_a_row_tells_its_stage_its_times_and_those_of_its_labels() -> None:
    step = {"action": "APPROVE", "created_at": "2026-01-05T09:00:00Z", "created_by": "a"}
    label = {
        "id": "l",
        "label_details": {
            "created_at": "2026-01-04T01:00:00Z",
            "updated_at": "2026-01-06T01:00:00Z",
        },
    }
    details = {"workflow_history": [step]}
    row = _row(projects={"p": {"labels": [label], "project_details": details}})
    assert sighting_of([row], "p") == Sighting(
        "r",
        "Done",
        "2026-01-06T01:00:00.000000Z",
        ("2026-01-04T01:00:00.000000Z",),
        frozenset({"l"}),
        "l",
        judged=True,
    )


# a project of any size


class Endless:
    """A Labelbox whose one job has as many rows as are wanted, each made when it is asked for."""

    def __init__(self, rows: int, *, row_bytes: int = 2_000, piece_rows: int = 100) -> None:
        self.rows, self.piece_rows = rows, piece_rows
        drawn = random.Random(1).randbytes(row_bytes).hex()
        self._line = json.dumps(_row(data_row={"id": "ID"}, drawn=drawn)).encode() + b"\n"
        self.size = len(self.line(0))
        self.base = ""

    def line(self, number: int) -> bytes:
        return self._line.replace(b'"ID"', b'"r%09d"' % number)

    async def graphql(self, request: web.Request) -> web.Response:
        asked = await request.json()
        query, variables = asked["query"], asked["variables"]
        if "exportDataRowsInProjectPyApi" in query:
            data: Any = {"exportDataRowsInProject": {"taskId": "j", "isStreamable": True}}
        elif "GetUserCreatedTasksPyApi" in query:
            data = {"user": {"createdTasks": [{"id": "j", "status": "COMPLETE"}]}}
        elif "GetUserPyApi" in query:
            data = {"user": {"id": "u"}}
        elif "GetExportMetadataHeaderPyApi" in query:
            told = {"totalSize": self.rows * self.size, "totalLines": self.rows}
            data = {"task": {"exportMetadataHeader": None}}
            if variables["streamType"] == "RESULT":
                data = {"task": {"exportMetadataHeader": told}}
        else:
            first = int(variables["offset"]) // self.size
            last = min(first + self.piece_rows, self.rows)
            place = {
                "offsets": {"start": first * self.size, "end": last * self.size - 1},
                "lines": {"start": first, "end": last - 1},
                "file": f"{self.base}/file/{first}/{last}",
            }
            data = {"task": {"exportFileFromOffset": place}}
        return web.json_response({"data": data})

    async def file(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(int(request.match_info["first"]), int(request.match_info["last"])):
            await response.write(self.line(number))
        return response


async def _listed_from(server: Endless) -> tuple[int, int]:
    """(rows told, the most bytes of memory taken meanwhile)."""
    app = web.Application()
    app.add_routes(
        [web.post("/graphql", server.graphql), web.get("/file/{first}/{last}", server.file)]
    )
    async with TestServer(app) as running:
        server.base = str(running.make_url("")).rstrip("/")
        graphql = GraphQL(
            url=f"{server.base}/graphql", authorization=lambda: "k", timeout_s=9, max_bytes=1 << 20
        )
        downloader = Downloader(networks=LOOPBACK)

        async def sleep(_: float) -> None:
            pass

        exports = Exports(
            graphql, downloader, sleep=sleep, timeout_s=9, max_bytes=1_000, max_line_bytes=LONGEST
        )
        told = 0
        tracemalloc.start()
        try:
            async for page in Listing(exports).changed_since("p", Window()):
                told += len(page.sightings)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            await graphql.close()
            await downloader.close()
    return told, most


async def test_a_project_six_times_as_large_needs_no_more_memory() -> None:
    small, of_small = await _listed_from(Endless(600))
    large, of_large = await _listed_from(Endless(3_600))
    assert (small, large) == (600, 3_600)
    assert of_large < of_small + (1 << 20)


async def test_a_row_over_the_limit_is_refused() -> None:
    with pytest.raises(Permanent) as raised:
        await _listed_from(Endless(1, row_bytes=LONGEST // 2))
    assert raised.value.reason == "export-too-large"
