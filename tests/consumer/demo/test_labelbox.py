"""The simulated Labelbox: as strict and as thin as the platform it stands for."""

from __future__ import annotations

import hmac
import io
import json
import zipfile
from typing import Any

import aiohttp
import pytest

from consumer.demo.labelbox import DONE, LABELING, REWORK, Drawing, Fault, SimulatedLabelbox
from consumer.demo.labelbox_export import details
from consumer.demo.labelbox_legacy import export_legacy, legacy_frames
from consumer.demo.labelbox_rows import export_row
from tests.samples.labelbox import samples

PNG = b"\x89PNG"
PARAMS = ("Attachments", "Metadata", "DataRowDetails", "ProjectDetails", "LabelDetails")
EXPORT = (
    "mutation exportDataRowsInProjectPyApi($input: ExportDataRowsInProjectInput!)"
    "{exportDataRowsInProject(input: $input){taskId isStreamable}}"
)
SHAPES = samples()

Json = dict[str, Any]


def _drawn(simulated: SimulatedLabelbox) -> str:
    row = simulated.create_row(
        "k",
        "https://images.test/k.dcm",
        attachments=[{"type": "IMAGE", "value": "https://images.test/k.png", "id": "catt"}],
        metadata=[{"schema_id": "cmet", "schema_name": "site", "value": "west"}],
    )
    mask = Drawing("Axial", 12, "liver", png=PNG)
    line = Drawing("Coronal", 90, "axis", line=((1.0, 2.0),))
    simulated.label(row, [mask, line])
    simulated.submit(row)
    simulated.approve(row)
    return row


def _exported(simulated: SimulatedLabelbox, *query: Json, **params: bool) -> list[Json]:
    job = simulated.start_export(_request(simulated, *query, **params))
    return [json.loads(line) for line in job.lines]


def _request(simulated: SimulatedLabelbox, *query: Json, **params: bool) -> Json:
    search = {"scope": None, "query": list(query)}
    filters = {"projectId": simulated.project_id, "searchQuery": search}
    return {"filters": filters, "params": params}


def _names(rows: list[Json]) -> list[str]:
    return [row["data_row"]["global_key"] for row in rows]


# shapes


def _shape(value: Any) -> Any:
    """The nested names of a JSON value; of what is keyed by ids, one stands for all."""
    if isinstance(value, list):
        return [_shape(value[0])] if value else []
    if isinstance(value, dict):
        named = {name: _shape(inner) for name, inner in value.items() if not _is_an_id(name)}
        keyed = [_shape(inner) for name, inner in value.items() if _is_an_id(name)]
        return {**named, "*": max(keyed, key=str)} if keyed else named
    return type(value).__name__


def _is_an_id(name: str) -> bool:
    return name.isdigit() or (len(name) > 20 and name[0] == "c" and "_" not in name)


def _without(shape: Json, *names: str) -> Json:
    """A shape without what depends on what was drawn where."""
    return {name: inner for name, inner in shape.items() if name not in names}


@pytest.mark.parametrize("sample", SHAPES)
def test_a_row_has_the_shape_of_the_vendors_page(sample: str) -> None:
    simulated = SimulatedLabelbox()
    row = simulated.rows[_drawn(simulated)]
    project = simulated.projects[row.project]
    everything = dict.fromkeys([f"include{name}" for name in (*PARAMS, "PerformanceDetails")], True)

    made = export_row(row, project, "https://api.test", details(everything))
    page = SHAPES[sample].current

    entry, page_entry = made["projects"][project.id], next(iter(page["projects"].values()))
    label, page_label = entry["labels"][0], page_entry["labels"][0]
    assert _shape({**made, "projects": 0}) == _shape({**page, "projects": 0})
    assert _shape(entry["project_details"]) == _shape(page_entry["project_details"])
    assert _shape({**label, "annotations": 0}) == _shape({**page_label, "annotations": 0})
    assert list(label["annotations"]) == list(page_label["annotations"])
    assert _objects(label) == _objects(page_label)


def _objects(label: Json) -> dict[str, Any]:
    return {
        drawn["annotation_kind"]: _shape(drawn)
        for group in label["annotations"]["groups"].values()
        for frame in group["frames"].values()
        for drawn in frame["objects"].values()
    } | {"group": list(next(iter(label["annotations"]["groups"].values())))}


@pytest.mark.parametrize("sample", SHAPES)
def test_a_legacy_entry_has_the_shape_of_the_vendors_page(sample: str) -> None:
    simulated = SimulatedLabelbox(legacy=True)
    row = simulated.rows[_drawn(simulated)]
    (made,) = export_legacy(row, simulated.projects[row.project], "https://api.test")
    (label,) = row.labels.values()
    mask, line = (next(legacy_frames(label, group, "b")) for group in ("Axial", "Coronal"))

    page = SHAPES[sample].legacy
    assert _shape(_without(made, "View Label")) == _shape(_without(page, "View Label"))
    assert [_shape(mask), _shape(line)] == [
        _shape({**frame, "objects": [_rounded(one) for one in frame["objects"]]})
        for frame in SHAPES[sample].frames
    ]


def _rounded(drawn: Json) -> Json:
    if "line" not in drawn:
        return drawn
    return {**drawn, "line": [{"x": float(p["x"]), "y": float(p["y"])} for p in drawn["line"]]}


@pytest.mark.parametrize("name", [*PARAMS, "PerformanceDetails"])
def test_details_that_are_not_asked_for_are_left_out(name: str) -> None:
    simulated = SimulatedLabelbox()
    _drawn(simulated)

    (with_it,) = _exported(simulated, **{f"include{name}": True})
    (without,) = _exported(simulated)

    assert len(json.dumps(with_it)) > len(json.dumps(without))


# the story


def test_a_story_leaves_the_history_that_the_vendor_prints() -> None:
    simulated = SimulatedLabelbox(reviews=("First review", "Second review"))
    row = simulated.create_row("k", "u")
    simulated.submit(row)
    simulated.approve(row)
    simulated.reject(row)
    simulated.rework(row)
    simulated.approve(row)
    simulated.approve(row)
    simulated.reject(row)
    simulated.move(row, LABELING)

    steps = [(s.action, s.previous, s.next) for s in simulated.rows[row].steps]
    assert steps == [
        ("MOVE", None, LABELING),
        ("MOVE", LABELING, "First review"),
        ("APPROVE", "First review", "Second review"),
        ("REJECT", "Second review", REWORK),
        ("REWORK", REWORK, "First review"),
        ("APPROVE", "First review", "Second review"),
        ("APPROVE", "Second review", None),
        ("REJECT", None, REWORK),
        ("MOVE", REWORK, LABELING),
    ]


def test_the_same_verbs_send_the_same_bytes() -> None:
    one, other = SimulatedLabelbox(), SimulatedLabelbox()
    _drawn(one)
    _drawn(other)

    assert one.outbox == other.outbox
    assert one.outbox != SimulatedLabelbox(seed="another").outbox


def test_webhooks_are_signed_with_the_secret() -> None:
    simulated = SimulatedLabelbox(webhook_sha256=True)
    _drawn(simulated)
    secret = simulated.webhook_secret.encode()

    for headers, body in simulated.outbox:
        sha1, sha256 = (hmac.new(secret, body, kind).hexdigest() for kind in ("sha1", "sha256"))
        assert headers["X-Hub-Signature"] == f"sha1={sha1}"
        assert headers["X-Hub-Signature-256"] == f"sha256={sha256}"
    assert [headers["X-Labelbox-Event"] for headers, _ in simulated.outbox] == [
        "WORKFLOW_ACTION",
        "LABEL_CREATED",
        "WORKFLOW_ACTION",
        "WORKFLOW_ACTION",
    ]
    assert len({headers["X-Labelbox-Id"] for headers, _ in simulated.outbox}) == 4


def test_a_later_save_is_printed_with_a_later_second() -> None:
    moment = SimulatedLabelbox()._clock()
    simulated = SimulatedLabelbox(clock=lambda: moment)
    row = simulated.create_row("k", "u")
    times = set()
    for _ in range(3):
        label = simulated.label(row, [])
        times.add(simulated.rows[row].labels[label].updated_at.replace(microsecond=0))

    assert len(times) == 3


def test_one_feature_cannot_have_two_masks_under_one_url() -> None:
    simulated = SimulatedLabelbox()
    row = simulated.create_row("k", "u")
    groups = ("Axial", "Sagittal")

    with pytest.raises(ValueError, match="another group"):
        simulated.label(row, [Drawing(g, 5, "liver", png=PNG, feature="cf") for g in groups])


# filters


def test_filters_name_rows() -> None:
    simulated = SimulatedLabelbox()
    row = _drawn(simulated)
    other = simulated.create_row("other", "u")
    activity = {"type": "data_row_last_activity_at"}
    between = {"min": "2026-01-05 09:00:00", "max": "2026-01-05T09:00:10+0000"}
    after = {"operator": "GREATER_THAN_OR_EQUAL", "timezone": "UTC", "value": "2026-01-05 09:00:11"}

    assert _names(_exported(simulated)) == ["k", "other"]
    assert _names(
        _exported(simulated, {"type": "data_row_id", "operator": "is", "ids": [other]})
    ) == ["other"]
    assert _names(_exported(simulated, {"type": "task_queue_status", "status": DONE})) == ["k"]
    assert _names(_exported(simulated, {"type": "task_queue_not_exist"})) == ["other"]
    assert _names(
        _exported(
            simulated,
            {**activity, "value": {"operator": "BETWEEN", "timezone": "UTC", "value": between}},
        )
    ) == ["k"]
    assert _names(_exported(simulated, {**activity, "value": after})) == ["other"]
    assert simulated.rows[row].active_at < simulated.rows[other].active_at


@pytest.mark.parametrize(
    "query",
    [
        {"type": "something_new"},
        {"type": "data_row_id", "operator": "is", "ids": []},
        {"type": "data_row_id", "operator": "is", "ids": ["x"] * 2_001},
    ],
)
async def test_a_filter_that_is_not_understood_is_refused(query: Json) -> None:
    simulated = SimulatedLabelbox()
    async with simulated.serve():
        answer = await _post(simulated, EXPORT, {"input": _request(simulated, query)})

    assert answer["errors"][0]["extensions"]["code"] == "MALFORMED_REQUEST"


# who may see what


async def test_an_export_file_refuses_the_key_and_everything_else_wants_it() -> None:
    simulated = SimulatedLabelbox()
    _drawn(simulated)
    key = {"Authorization": f"Bearer {simulated.api_key}"}
    async with simulated.serve() as base, aiohttp.ClientSession() as session:
        started = await _post(simulated, EXPORT, {"input": _request(simulated)})
        job = started["data"]["exportDataRowsInProject"]["taskId"]
        file = f"{base}/export-files/{job}/RESULT/0?signature=simulated"
        (place,) = simulated.masks.places()
        mask = f"{base}/masks/feature/{place[0]}/{place[1]}"

        assert await _status(session, file, {}) == 200
        assert await _status(session, file, key) == 403
        assert await _status(session, file.partition("?")[0], {}) == 403
        assert await _status(session, mask, key) == 200
        assert await _status(session, mask, {}) == 401
        assert await _status(session, mask + "0", key) == 404
        assert (await _post(simulated, EXPORT, {}, key="wrong"))["errors"]


async def test_objects_of_one_composite_share_a_picture_and_have_a_colour_each() -> None:
    simulated = SimulatedLabelbox()
    row = simulated.create_row("k", "https://images.test/k.dcm")
    red, green = (255, 0, 0), (0, 255, 0)
    simulated.label(
        row,
        [
            Drawing("Axial", 4, "liver", png=PNG, color=red),
            Drawing("Axial", 4, "spleen", png=PNG, color=green),
        ],
    )
    project = simulated.projects[simulated.project_id]
    async with simulated.serve() as base, aiohttp.ClientSession() as session:
        made = export_row(simulated.rows[row], project, base, details({}))
        (label,) = made["projects"][project.id]["labels"]
        objects = label["annotations"]["groups"]["Axial"]["frames"]["4"]["objects"].values()
        composites = [one["composite_mask"] for one in objects]
        (url,) = {one["url"] for one in composites}
        async with session.get(url, headers={"Authorization": _bearer(simulated)}) as answer:
            served = await answer.read()
        without_key = await _status(session, url, {})

    assert sorted(one["color_rgb"] for one in composites) == [[0, 255, 0], [255, 0, 0]]
    assert not any("mask" in one for one in objects)
    assert (served, without_key) == (PNG, 401)


@pytest.mark.parametrize("number", [1, 3])
async def test_a_row_may_be_about_images_that_are_served(number: int) -> None:
    simulated = SimulatedLabelbox()
    files = {f"a {each}.dcm": bytes([each]) * 50 for each in range(number)}
    row = simulated.rows[simulated.create_row("k", images=files)]
    async with simulated.serve() as base, aiohttp.ClientSession() as session:
        (made,) = _exported(simulated)
        legacy = next(export_legacy(row, simulated.projects[row.project], base))
        url = made["data_row"]["row_data"]
        async with session.get(url) as answer:
            served = await answer.read()

    assert legacy["Labeled Data"] == url
    if number == 1:
        assert served == files["a 0.dcm"]
        return
    with zipfile.ZipFile(io.BytesIO(served)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files


@pytest.mark.parametrize("query", ["query GetUserPyApi{user{shoeSize}}", "query Nobody{knows}", ""])
async def test_a_query_that_asks_for_the_unknown_is_refused(query: str) -> None:
    simulated = SimulatedLabelbox()
    async with simulated.serve():
        answer = await _post(simulated, query, {})

    assert answer["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"


async def test_an_answer_holds_what_was_asked_for_and_no_more() -> None:
    simulated = SimulatedLabelbox()
    async with simulated.serve():
        answer = await _post(simulated, "query GetUserPyApi{user{id email}}", {})

    assert answer == {"data": {"user": {"id": simulated.user_id, "email": "owner@example.com"}}}


async def test_faults_come_in_their_order_and_end() -> None:
    simulated = SimulatedLabelbox()
    simulated.faults.order("user", Fault("status", 503), times=2)
    query = "query GetUserPyApi{user{id}}"
    async with simulated.serve():
        answers = [await _post(simulated, query, {}) for _ in range(3)]

    assert ["data" in answer for answer in answers] == [False, False, True]
    assert simulated.counters["user"] == 3


async def _post(
    simulated: SimulatedLabelbox, query: str, variables: Json, key: str | None = None
) -> Json:
    headers = {"Authorization": f"Bearer {key or simulated.api_key}"}
    content = {"query": query, "variables": variables}
    url = f"{simulated.base_url}/graphql"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=content, headers=headers) as response,
    ):
        answer: Json = await response.json()
        return answer


def _bearer(simulated: SimulatedLabelbox) -> str:
    return f"Bearer {simulated.api_key}"


async def _status(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> int:
    async with session.get(url, headers=headers) as response:
        return response.status
