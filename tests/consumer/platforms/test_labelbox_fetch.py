"""Fetching and downloading from a real HTTP peer that speaks Labelbox's protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from consumer.demo.labelbox import GROUPS, Drawing, Fault, SimulatedLabelbox
from consumer.download import Downloader
from consumer.errors import GroundwireError, Permanent, Transient
from consumer.model import Missing, TaskKey, TaskSnapshot
from consumer.platforms.labelbox import Labelbox, Limits
from tests.loopback import LOOPBACK

PNG = b"\x89PNG\r\n\x1a\n...IEND\xaeB`\x82"

Make = Callable[..., Labelbox]


class Sleeper:
    """Sleeps in no time and remembers for how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
async def make(sleeper: Sleeper) -> AsyncIterator[Make]:
    """Makes platforms for a simulator, and closes what they hold."""
    opened: list[Any] = []

    def one(simulated: SimulatedLabelbox, **given: Any) -> Labelbox:
        downloader = Downloader(stall_s=5, networks=LOOPBACK)
        url = given.pop("api_url", f"{simulated.base_url}/graphql")
        key = given.pop("api_key", simulated.api_key)
        platform = Labelbox(
            source="lb",
            secrets=[b"s"],
            api_key=key,
            downloader=downloader,
            clock=lambda: datetime.now(UTC),
            api_url=url,
            sleep=sleeper,
            **given,
        )
        opened.extend([platform, downloader])
        return platform

    yield one
    for closable in opened:
        await closable.close()


def _key(simulated: SimulatedLabelbox, task: str, project: str | None = None) -> TaskKey:
    return TaskKey(source="lb", project=project or simulated.project_id, task=task)


def _approved(simulated: SimulatedLabelbox, name: str = "k") -> str:
    row = simulated.create_row(name, f"https://images.test/{name}.dcm")
    simulated.label(
        row,
        [
            Drawing("Axial", 6, "liver", png=PNG),
            Drawing("Coronal", 9, "axis", line=((1.0, 2.0), (3.0, 4.0))),
        ],
    )
    simulated.submit(row)
    simulated.approve(row)
    return row


async def _fetch_one(platform: Labelbox, key: TaskKey) -> TaskSnapshot:
    answer = (await platform.fetch([key]))[key]
    assert isinstance(answer, TaskSnapshot), answer
    return answer


# what is there


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_task_is_fetched_and_its_mask_downloaded(make: Make, legacy: bool) -> None:
    simulated = SimulatedLabelbox(legacy=legacy)
    row = _approved(simulated)
    async with simulated.serve():
        platform = make(simulated)
        seen = await _fetch_one(platform, _key(simulated, row))
        (mask,) = seen.labels[0].series[0].masks
        data = await platform.download(seen, mask)

    assert data == PNG
    assert (mask.group, mask.frame) == ("Axial", 6)
    assert (seen.stage, seen.ground_truth) == ("Done", True)
    assert seen.name == "k"
    assert simulated.counters["mask GET"] == 1


async def test_both_shapes_tell_the_same_history_and_labels(make: Make) -> None:
    simulated = SimulatedLabelbox()
    key = _key(simulated, _approved(simulated))
    async with simulated.serve():
        platform = make(simulated)
        current = await _fetch_one(platform, key)
        simulated.legacy = True
        legacy = await _fetch_one(platform, key)

    assert [item.id for item in current.history] == [item.id for item in legacy.history]
    assert [label.id for label in current.labels] == [label.id for label in legacy.labels]
    assert [_places(one) for one in (current,)] == [_places(one) for one in (legacy,)]


def _places(snapshot: TaskSnapshot) -> list[tuple[str | None, str | None, int | None]]:
    masks = snapshot.labels[0].series[0].masks
    return [(mask.group, mask.feature, mask.frame) for mask in masks]


async def test_many_tasks_cost_one_export_job(make: Make) -> None:
    simulated = SimulatedLabelbox(chunk_bytes=5_000)
    keys = [_key(simulated, _approved(simulated, f"k{n}")) for n in range(40)]
    async with simulated.serve():
        answers = await make(simulated).fetch(keys)

    assert [one.name for one in answers.values() if isinstance(one, TaskSnapshot)] == [
        f"k{n}" for n in range(40)
    ]
    assert simulated.counters["export"] == 1
    assert simulated.counters["export file GET"] > 1
    assert simulated.counters["mask GET"] == 0


@pytest.mark.parametrize("final_newline", [True, False])
async def test_rows_that_lie_across_pieces_are_read_whole(make: Make, final_newline: bool) -> None:
    simulated = SimulatedLabelbox(chunk_bytes=701)
    simulated.final_newline = final_newline
    keys = [_key(simulated, _approved(simulated, f"k{n}")) for n in range(3)]
    async with simulated.serve():
        answers = await make(simulated).fetch(keys)

    assert [type(answers[key]) for key in keys] == [TaskSnapshot] * 3


async def test_a_job_is_asked_for_at_most_as_many_ids_as_the_platform_allows(make: Make) -> None:
    simulated = SimulatedLabelbox()
    rows = [simulated.create_row(f"k{n}", "u") for n in range(2_001)]
    async with simulated.serve():
        answers = await make(simulated).fetch([_key(simulated, row) for row in rows])

    assert all(isinstance(one, TaskSnapshot) for one in answers.values())
    assert len(answers) == 2_001
    assert simulated.counters["export"] == 2


async def test_each_project_has_its_own_job(make: Make) -> None:
    simulated = SimulatedLabelbox()
    other = simulated.add_project("Other").id
    keys = [
        _key(simulated, simulated.create_row("k1", "u")),
        _key(simulated, simulated.create_row("k2", "u", project=other), other),
    ]
    async with simulated.serve():
        answers = await make(simulated).fetch(keys)

    assert [type(answers[key]) for key in keys] == [TaskSnapshot, TaskSnapshot]
    assert simulated.counters["export"] == 2


async def test_details_that_are_switched_off_are_fetched_all_the_same(make: Make) -> None:
    simulated = SimulatedLabelbox()
    key = _key(simulated, _approved(simulated))
    names = ("attachments", "metadata_fields", "data_row_details")
    names += ("project_details", "label_details", "performance_details")
    async with simulated.serve():
        seen = await _fetch_one(
            make(simulated, export_params=dict.fromkeys(names, False)),
            key,
        )

    assert (seen.stage, seen.ground_truth, len(seen.history)) == ("Done", True, 3)
    assert seen.labels[0].updated_at is not None
    assert "attachments" not in seen.document
    entry = seen.document["projects"][simulated.project_id]
    assert set(entry) == {"project_name", "labels"}
    assert set(entry["labels"][0]) == {"label_kind", "version", "id", "annotations"}


async def test_a_slow_job_is_asked_after_every_two_seconds(make: Make, sleeper: Sleeper) -> None:
    simulated = SimulatedLabelbox(export_polls=3)
    key = _key(simulated, _approved(simulated))
    async with simulated.serve():
        await _fetch_one(make(simulated), key)

    assert sleeper.slept == [2.0, 2.0, 2.0]
    assert simulated.counters["poll"] == 4


async def test_a_job_that_never_ends_is_given_up(make: Make, sleeper: Sleeper) -> None:
    simulated = SimulatedLabelbox(export_polls=1_000_000)
    key = _key(simulated, _approved(simulated))
    async with simulated.serve():
        with pytest.raises(Transient) as caught:
            await make(simulated).fetch([key])

    assert (caught.value.reason, caught.value.shared) == ("export-timeout", True)
    assert sum(sleeper.slept) == 600


async def test_an_unchanged_task_fetched_twice_is_equal(make: Make) -> None:
    simulated = SimulatedLabelbox()
    key = _key(simulated, _approved(simulated))
    async with simulated.serve():
        platform = make(simulated)
        assert await _fetch_one(platform, key) == await _fetch_one(platform, key)


async def test_a_stage_move_keeps_the_version_and_a_later_save_does_not(make: Make) -> None:
    simulated = SimulatedLabelbox()
    row = _approved(simulated)
    async with simulated.serve():
        platform, key = make(simulated), _key(simulated, row)
        approved = await _fetch_one(platform, key)
        simulated.reject(row)
        sent_back = await _fetch_one(platform, key)
        simulated.label(row, [Drawing("Axial", 6, "liver", png=PNG)])
        saved = await _fetch_one(platform, key)

    assert sent_back.labels == approved.labels
    assert not sent_back.ground_truth
    assert saved.labels[0].version != approved.labels[0].version


async def test_a_skipped_row_is_never_ground_truth(make: Make) -> None:
    simulated = SimulatedLabelbox()
    row = simulated.create_row("k", "u")
    simulated.skip_label(row)
    simulated.submit(row)
    simulated.approve(row)
    async with simulated.serve():
        seen = await _fetch_one(make(simulated), _key(simulated, row))

    assert (seen.ground_truth, seen.ground_truth_reason) == (False, "skipped")


async def test_all_labels_of_a_consensus_are_kept_and_the_approved_one_chosen(make: Make) -> None:
    simulated = SimulatedLabelbox()
    row = simulated.create_row("k", "u")
    labels = [simulated.label(row, [], by=f"{n}@example.com") for n in range(3)]
    simulated.submit(row)
    simulated.approve(row)
    async with simulated.serve():
        platform, key = make(simulated), _key(simulated, row)
        undecided = await _fetch_one(platform, key)
        simulated.review_label(row, labels[1], approved=True)
        decided = await _fetch_one(platform, key)
        simulated.make_benchmark(row, labels[2])
        benchmark = await _fetch_one(platform, key)

    assert sorted(label.id for label in undecided.labels) == sorted(labels)
    assert undecided.ground_truth_reason == "consensus-undecided"
    assert decided.ground_truth_label == labels[1]
    assert benchmark.ground_truth_label == labels[2]


async def test_an_older_answer_shows_as_older(make: Make) -> None:
    simulated = SimulatedLabelbox()
    row = _approved(simulated)
    simulated.faults.order("export", Fault("stale"))
    async with simulated.serve():
        platform, key = make(simulated), _key(simulated, row)
        stale, current = await _fetch_one(platform, key), await _fetch_one(platform, key)

    assert len(stale.history) == len(current.history) - 1
    assert {item.id for item in stale.history} < {item.id for item in current.history}


# what is not there


async def test_a_row_that_is_not_there_is_missing(make: Make) -> None:
    simulated = SimulatedLabelbox()
    rows = [_approved(simulated, "gone"), _approved(simulated, "there")]
    simulated.delete_row(rows[0])
    async with simulated.serve():
        answers = await make(simulated).fetch([_key(simulated, row) for row in rows])

    assert [type(one) for one in answers.values()] == [Missing, TaskSnapshot]
    assert simulated.counters["project"] == 1


async def test_nothing_is_missing_from_a_project_that_cannot_be_read(make: Make) -> None:
    simulated = SimulatedLabelbox()
    row, good = simulated.create_row("k", "u"), _key(simulated, _approved(simulated))
    bad = _key(simulated, row, "cunknown")
    async with simulated.serve():
        answers = await make(simulated).fetch([bad, good])

    assert isinstance(answers[good], TaskSnapshot)
    failure = answers[bad]
    assert isinstance(failure, Transient)
    assert failure.reason == "project-unreadable"


async def test_a_project_that_is_null_makes_nothing_missing(make: Make) -> None:
    simulated = SimulatedLabelbox()
    simulated.faults.order("project", Fault("null"))
    key = _key(simulated, "cgone")
    async with simulated.serve():
        answer = (await make(simulated).fetch([key]))[key]

    assert isinstance(answer, Transient)
    assert answer.reason == "project-unreadable"


async def test_nothing_is_missing_when_a_line_was_lost(make: Make) -> None:
    simulated = SimulatedLabelbox()
    keys = [_key(simulated, _approved(simulated, f"k{n}")) for n in range(2)]
    simulated.faults.order("export", Fault("line-lost"))
    async with simulated.serve():
        there, lost = (await make(simulated).fetch(keys)).values()

    assert isinstance(there, TaskSnapshot)
    assert isinstance(lost, Transient)
    assert lost.reason == "export-incomplete"


async def test_nothing_is_missing_when_the_export_reports_errors(make: Make) -> None:
    simulated = SimulatedLabelbox()
    simulated.create_row("k", "u")
    simulated.export_errors = [b'{"message": "could not be read"}\n']
    key = _key(simulated, "cgone")
    async with simulated.serve():
        answer = (await make(simulated).fetch([key]))[key]

    assert isinstance(answer, Transient)
    assert answer.reason == "export-incomplete"


# what goes wrong


FAULTS = {
    "credentials": (Fault("status", 401), "platform-credentials", True),
    "forbidden": (Fault("status", 403), "platform-credentials", True),
    "too many": (Fault("status", 429, retry_after="7"), "platform-rate-limited", True),
    "down": (Fault("status", 503), "platform-down", True),
    "teapot": (Fault("status", 418), "platform-unreadable", True),
    "redirect": (Fault("status", 307, location="/graphql"), "platform-unreadable", True),
    "null": (Fault("null"), "platform-unreadable", True),
    "key refused in a 200": (
        Fault("graphql", code="AUTHENTICATION_ERROR"),
        "platform-credentials",
        True,
    ),
    "error in a 200": (Fault("graphql", code="INTERNAL_SERVER_ERROR"), "platform-error", False),
    "invalid": (Fault("graphql", code="GRAPHQL_VALIDATION_FAILED"), "platform-error", False),
    "limit in a 200": (Fault("rate-limit"), "platform-rate-limited", True),
}
OPERATIONS = ("export", "poll", "export header", "export offset", "user")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_error_is_never_an_empty_answer(make: Make, operation: str, fault: str) -> None:
    ordered, reason, shared = FAULTS[fault]
    simulated = SimulatedLabelbox()
    key = _key(simulated, _approved(simulated))
    simulated.faults.order(operation, ordered)
    async with simulated.serve():
        platform = make(simulated)
        with pytest.raises(Transient) as caught:
            await platform.fetch([key])
        again = await _fetch_one(platform, key)

    assert (caught.value.reason, caught.value.shared) == (reason, shared)
    assert simulated.api_key not in str(caught.value)
    assert again.ground_truth


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "null"])
async def test_an_error_while_asking_for_the_project_makes_nothing_missing(
    make: Make, fault: str
) -> None:
    simulated = SimulatedLabelbox()
    simulated.faults.order("project", FAULTS[fault][0])
    async with simulated.serve():
        with pytest.raises(Transient) as caught:
            await make(simulated).fetch([_key(simulated, "cgone")])

    assert caught.value.reason == FAULTS[fault][1]


async def test_a_rate_limit_says_how_long_to_wait(make: Make) -> None:
    simulated = SimulatedLabelbox()
    simulated.faults.order("export", Fault("status", 429, retry_after="7"))
    async with simulated.serve():
        with pytest.raises(Transient) as caught:
            await make(simulated).fetch([_key(simulated, "r")])

    assert caught.value.after_s == 7


async def test_a_wrong_key_is_a_failure_of_all_and_is_not_told(make: Make) -> None:
    simulated = SimulatedLabelbox()
    async with simulated.serve():
        with pytest.raises(Transient) as caught:
            await make(simulated, api_key="a wrong key").fetch([_key(simulated, "r")])

    assert (caught.value.reason, caught.value.shared) == ("platform-credentials", True)
    assert "wrong key" not in str(caught.value)


async def test_a_server_that_hangs_is_not_waited_for_for_ever(make: Make) -> None:
    simulated = SimulatedLabelbox()
    simulated.faults.order("export", Fault("hang"))
    async with simulated.serve():
        with pytest.raises(Transient) as caught:
            await make(simulated, limits=Limits(answer_s=0.1)).fetch([_key(simulated, "r")])

    assert (caught.value.reason, caught.value.shared) == ("platform-timeout", True)


async def test_a_server_that_is_not_there_is_an_outage(make: Make) -> None:
    simulated = SimulatedLabelbox()
    async with simulated.serve():
        url = f"{simulated.base_url}/graphql"
    with pytest.raises(Transient) as caught:
        await make(simulated, api_url=url).fetch([_key(simulated, "r")])

    assert (caught.value.reason, caught.value.shared) == ("platform-unreachable", True)


async def test_a_failed_export_job_may_be_one_rows_fault(make: Make) -> None:
    simulated = SimulatedLabelbox()
    key = _key(simulated, _approved(simulated))
    simulated.faults.order("export", Fault("failed-task"))
    async with simulated.serve():
        with pytest.raises(Transient) as caught:
            await make(simulated).fetch([key])

    assert (caught.value.reason, caught.value.shared) == ("export-failed", False)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("truncated"), "export-truncated"),
        (Fault("status", 403), "download-refused"),
        (Fault("status", 404), "download-missing"),
        (Fault("status", 500), "download-failed"),
    ],
)
async def test_an_export_file_that_is_not_whole_is_no_answer(
    make: Make, fault: Fault, reason: str
) -> None:
    simulated = SimulatedLabelbox()
    key = _key(simulated, _approved(simulated))
    simulated.faults.order("export file GET", fault, times=3)
    async with simulated.serve():
        with pytest.raises(Transient) as caught:
            await make(simulated).fetch([key])

    assert caught.value.reason == reason
    assert simulated.counters["export file GET"] == (3 if reason == "download-refused" else 1)
    assert "signature" not in str(caught.value)


async def test_an_export_over_the_limit_is_refused(make: Make) -> None:
    simulated = SimulatedLabelbox()
    key = _key(simulated, _approved(simulated))
    async with simulated.serve():
        with pytest.raises(Permanent) as caught:
            await make(simulated, limits=Limits(export_bytes=1_000)).fetch([key])

    assert caught.value.reason == "export-too-large"


async def test_an_answer_over_the_limit_is_refused(make: Make) -> None:
    simulated = SimulatedLabelbox()
    async with simulated.serve():
        with pytest.raises(Permanent) as caught:
            await make(simulated, limits=Limits(answer_bytes=10)).fetch([_key(simulated, "r")])

    assert caught.value.reason == "platform-answer-too-large"


async def test_frames_and_masks_over_the_limit_are_refused(make: Make) -> None:
    simulated = SimulatedLabelbox(legacy=True)
    key = _key(simulated, _approved(simulated))
    async with simulated.serve():
        failure = (await make(simulated, limits=Limits(frames_bytes=10)).fetch([key]))[key]
        platform = make(simulated, limits=Limits(mask_bytes=len(PNG) - 1))
        seen = await _fetch_one(platform, key)
        with pytest.raises(Permanent) as caught:
            await platform.download(seen, seen.labels[0].series[0].masks[0])

    assert isinstance(failure, Permanent)
    assert (failure.reason, caught.value.reason) == ("download-too-large", "download-too-large")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("status", 500), "download-failed"),
        (Fault("status", 404), "download-missing"),
        (Fault("truncated"), "row-unreadable"),
    ],
)
async def test_legacy_frames_that_cannot_be_had_are_that_rows_failure(
    make: Make, fault: Fault, reason: str
) -> None:
    simulated = SimulatedLabelbox(legacy=True)
    keys = [_key(simulated, _approved(simulated, f"k{n}")) for n in range(2)]
    simulated.faults.order("frames GET", fault)
    async with simulated.serve():
        answers = list((await make(simulated).fetch(keys)).values())

    (failure,) = [one for one in answers if not isinstance(one, TaskSnapshot)]
    assert isinstance(failure, GroundwireError)
    assert failure.reason == reason


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("truncated"), "download-truncated"),
        (Fault("status", 404), "download-missing"),
        (Fault("status", 503), "download-failed"),
        (Fault("status", 429, retry_after="3"), "download-rate-limited"),
    ],
)
async def test_a_mask_that_cannot_be_had_whole_is_a_failure(
    make: Make, fault: Fault, reason: str
) -> None:
    simulated = SimulatedLabelbox()
    key = _key(simulated, _approved(simulated))
    simulated.faults.order("mask GET", fault)
    async with simulated.serve():
        platform = make(simulated)
        seen = await _fetch_one(platform, key)
        with pytest.raises(Transient) as caught:
            await platform.download(seen, seen.labels[0].series[0].masks[0])

    assert caught.value.reason == reason


# where the key goes


async def test_the_key_goes_to_no_other_host(make: Make) -> None:
    asked: list[str | None] = []

    async def stranger(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Authorization"))
        return web.Response(body=PNG)

    simulated, other = SimulatedLabelbox(), web.Application()
    other.router.add_get("/{path:.*}", stranger)
    runner = web.AppRunner(other)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        row = _approved(simulated)
        async with simulated.serve():
            platform = make(simulated)
            simulated.base_url, own = base, simulated.base_url
            simulated.file_base_url = own
            seen = await _fetch_one(platform, _key(simulated, row))
            await platform.download(seen, seen.labels[0].series[0].masks[0])
    finally:
        await runner.cleanup()

    assert asked == [None]


async def test_a_feature_seen_in_several_groups_has_a_mask_for_each(make: Make) -> None:
    simulated = SimulatedLabelbox()
    row = simulated.create_row("k", "u")
    drawings = [
        Drawing(group, frame, "liver", png=PNG, feature="cshared")
        for frame, group in enumerate(GROUPS, 3)
    ]
    simulated.label(row, drawings)
    async with simulated.serve():
        seen = await _fetch_one(make(simulated), _key(simulated, row))

    masks = seen.labels[0].series[0].masks
    assert [(mask.group, mask.frame) for mask in masks] == [
        ("Axial", 3),
        ("Sagittal", 4),
        ("Coronal", 5),
    ]
