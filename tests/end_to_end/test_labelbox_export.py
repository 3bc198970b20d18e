"""A Labelbox project's story, told by signed webhooks and configured as an operator would, ends as
files in the lake: in the current and in the legacy shape of the export."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
import pytest
from PIL import Image

from consumer.app_adapters import make_platforms, project_key
from consumer.demo.labelbox import Drawing, SimulatedLabelbox
from consumer.demo.phantom import Phantom, ct_series
from consumer.errors import Permanent, Transient
from consumer.model import (
    Failure,
    LaneSpec,
    Manifest,
    Message,
    Outcome,
    Pointer,
    TaskEvent,
    canonical,
    decode,
)
from consumer.ports import Ports
from consumer.settings import load
from handlers import export, layout
from tests.fakes_queue import FakeQueue
from tests.fakes_store import FakeStore

_AUDIT = LaneSpec(name="audit", wants=("outcome", "record"))
_SHAPES = pytest.mark.parametrize("legacy", [False, True], ids=["current", "legacy"])


def png(value: int) -> bytes:
    data = io.BytesIO()
    Image.new("L", (4, 3), value).save(data, "PNG")
    return data.getvalue()


PHANTOM = Phantom(shape=(4, 3, 8))
IMAGES = {f"{k}.dcm": data for k, data in enumerate(ct_series(PHANTOM))}
LIVER = Drawing("Axial", 6, "liver", png=png(255), feature="liver")
AXIS = Drawing("Coronal", 2, "axis", line=((1.0, 2.0), (3.0, 4.0)), feature="axis")


@dataclass(frozen=True)
class OneWork:
    message: Message
    attempt: int = 9  # a late attempt: what does not show its event is taken as it is
    failure: Failure | None = None


@dataclass
class House:
    """The export over the simulated Labelbox, with a lake in memory."""

    simulator: SimulatedLabelbox
    ports: Ports
    store: FakeStore
    again: Callable[[str], House] = field(init=False)  # the same, configured otherwise

    def events(self) -> list[TaskEvent]:
        """What the webhooks not taken yet tell."""
        platform = self.ports.platforms["lb"]
        sent, self.simulator.outbox[:] = list(self.simulator.outbox), []
        told = [
            platform.verify({name.lower(): value for name, value in headers.items()}, {}, body)
            for headers, body in sent
        ]
        return [event for one in told for event in platform.parse(one)]

    async def export(self, failure: Failure | None = None) -> list[Any]:
        """Works on what the webhooks told; the results."""
        return await self.work(self.events(), failure)

    async def work(self, events: Sequence[TaskEvent], failure: Failure | None = None) -> list[Any]:
        works = [OneWork(event, failure=failure) for event in events]
        return [result async for _, result in export.handle(works, self.ports)]

    def pointer(self, row: str) -> Pointer:
        key = layout.pointer_key(self.simulator.project_id, row)
        return decode(self.store.objects[key], Pointer)

    def manifest(self, row: str) -> Manifest:
        return decode(self.store.objects[self.pointer(row).manifest or ""], Manifest)

    def document(self, row: str) -> dict[str, Any]:
        (key,) = (f.key for f in self.manifest(row).files if f.path == "annotations.json")
        document: dict[str, Any] = json.loads(self.store.objects[key])
        return document

    def masks(self, row: str) -> dict[str, bytes]:
        return {f.path: self.store.objects[f.key] for f in self.manifest(row).files if f.label}


Open = Callable[..., Awaitable[House]]


@pytest.fixture
async def a_house(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens houses that are closed afterwards; ``toml`` goes below the source's table."""
    async with AsyncExitStack() as stack:

        async def opened(toml: str = "", **settings: Any) -> House:
            simulator = SimulatedLabelbox(**settings)
            await stack.enter_async_context(simulator.serve())
            return configured(simulator, FakeStore(), toml)

        def configured(simulator: SimulatedLabelbox, store: FakeStore, toml: str) -> House:
            closing: list[Any] = []
            house = House(simulator, _ports(tmp_path, simulator, store, toml, closing), store)
            house.again = lambda toml: configured(simulator, store, toml)
            for close in closing:
                stack.push_async_callback(close)
            return house

        yield opened


def _ports(
    folder: Path, simulator: SimulatedLabelbox, store: FakeStore, toml: str, closing: list[Any]
) -> Ports:
    file = folder / "groundwire.toml"
    file.write_text(
        f"""
        [sources.lb]
        platform = "labelbox"
        secrets = ["env:OLD", "env:NEW"]
        api_key = "env:KEY"
        api_url = "{simulator.base_url}/graphql"
        {toml}
        """
    )
    secrets = {"OLD": "retiring", "NEW": simulator.webhook_secret, "KEY": simulator.api_key}
    found = load(file, secrets)
    return Ports(
        platforms=make_platforms(found, closing),
        queue=cast(Any, FakeQueue((_AUDIT,), opened=True)),
        store=store,
        log=cast(Any, None),
        rules=found.rules(),
        project_key=project_key,
        clock=lambda: datetime(2026, 1, 2, tzinfo=UTC),
    )


def labelled(simulator: SimulatedLabelbox, *drawings: Drawing) -> str:
    """A row that was labelled and waits for its review."""
    row = simulator.create_row("study01", images=IMAGES)
    simulator.label(row, drawings or (LIVER, AXIS))
    simulator.submit(row)
    return row


@_SHAPES
async def test_an_approved_row_is_files_and_its_document_names_them(
    a_house: Open, legacy: bool
) -> None:
    house = await a_house(legacy=legacy)
    row = labelled(house.simulator)
    house.simulator.approve(row)
    await house.export()
    masks = house.masks(row)
    assert set(masks) == {"segmentations/A.nii.gz", "geometry/A.json"}
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(masks["segmentations/A.nii.gz"]))
    assert np.array_equal(np.argwhere(np.asanyarray(image.dataobj))[:, 2], [5] * 12)
    assert np.allclose(image.affine, PHANTOM.affine)
    (label,) = house.document(row)["projects"][house.simulator.project_id]["labels"]
    (mask,) = (file for file in house.manifest(row).files if file.path in masks and file.shape)
    drawn = label["annotations"]["groups"]["Axial"]["frames"]["6"]["objects"]["liver"]
    assert drawn["mask"]["url"] == mask.key
    assert [(one.feature, one.voxels) for one in mask.labels] == [("liver", 12)]
    assert house.pointer(row).ground_truth
    assert b"X-Sig" not in b"".join(house.store.objects.values())


async def test_both_shapes_give_the_same_masks_history_and_ground_truth(a_house: Open) -> None:
    ends = []
    for legacy in (False, True):
        house = await a_house(legacy=legacy)
        row = labelled(house.simulator)
        house.simulator.approve(row)
        await house.export()
        pointer = house.pointer(row)
        ends.append((house.masks(row), pointer.history, pointer.ground_truth_label, pointer.stage))
    assert ends[0] == ends[1]


@_SHAPES
async def test_a_row_seen_again_unchanged_is_the_same_revision(a_house: Open, legacy: bool) -> None:
    house = await a_house(legacy=legacy)
    row = labelled(house.simulator)
    events = house.events()
    await house.work(events)
    before = house.pointer(row)
    assert await house.work(events) == [None] * len(events)
    assert house.pointer(row) == before
    assert house.simulator.counters["mask GET"] == 1


@_SHAPES
async def test_a_row_sent_back_leaves_the_ground_truth_and_rework_does_not_restore_it(
    a_house: Open, legacy: bool
) -> None:
    house = await a_house(legacy=legacy)
    row = labelled(house.simulator)
    seen = []
    for change in (None, "approve", "reject", "rework", "approve"):
        if change:
            getattr(house.simulator, change)(row)
        await house.export()
        pointer = house.pointer(row)
        seen.append((str(pointer.change), pointer.ground_truth))
    assert seen == [
        ("exported", False), ("moved", True), ("retracted", False), ("moved", False),
        ("moved", True),
    ]  # fmt: skip
    assert house.simulator.counters["mask GET"] == 1
    assert house.store.violations == []


async def test_ground_truth_only_keeps_files_from_approval_to_sending_back(a_house: Open) -> None:
    house = await a_house('export = { when = "ground-truth" }')
    row = labelled(house.simulator)
    had = []
    for change in (None, "approve", "reject"):
        if change:
            getattr(house.simulator, change)(row)
        await house.export()
        had.append(house.pointer(row).revision is not None)
    assert had == [False, True, False]
    assert house.simulator.counters["mask GET"] == 1


@_SHAPES
async def test_a_consensus_keeps_all_labels_and_the_approved_one_is_the_truth(
    a_house: Open, legacy: bool
) -> None:
    house = await a_house(legacy=legacy)
    row = house.simulator.create_row("study01", images=IMAGES)
    ben = house.simulator.label(row, [Drawing("Axial", 1, "liver", png=png(1))], by="ben")
    dora = house.simulator.label(row, [Drawing("Axial", 1, "liver", png=png(2))], by="dora")
    house.simulator.submit(row)
    house.simulator.approve(row)
    await house.export()
    assert sorted(path.split("/")[1] for path in house.masks(row)) == sorted([ben, dora])
    pointer = house.pointer(row)
    assert (pointer.ground_truth, pointer.ground_truth_reason) == (False, "consensus-undecided")
    house.simulator.review_label(row, dora, approved=True)
    await house.export()
    assert house.pointer(row).ground_truth_label == dora
    house.simulator.make_benchmark(row, ben)
    await house.export()
    assert house.pointer(row).ground_truth_label == ben


@_SHAPES
async def test_a_skipped_label_is_never_the_truth(a_house: Open, legacy: bool) -> None:
    house = await a_house(legacy=legacy)
    row = house.simulator.create_row("study01", images=IMAGES)
    house.simulator.skip_label(row)
    house.simulator.submit(row)
    house.simulator.approve(row)
    await house.export()
    pointer = house.pointer(row)
    assert (pointer.revision, pointer.ground_truth_reason) == (None, "skipped")


@_SHAPES
async def test_a_row_approved_with_nothing_drawn_is_an_empty_label_map_on_its_images_grid(
    a_house: Open, legacy: bool
) -> None:
    house = await a_house(legacy=legacy)
    row = house.simulator.create_row("study01", images=IMAGES)
    house.simulator.label(row, [])
    house.simulator.submit(row)
    house.simulator.approve(row)
    await house.export()
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(*house.masks(row).values()))
    assert image.shape == PHANTOM.shape
    assert not np.asanyarray(image.dataobj).any()
    assert house.manifest(row).empty == ()


@_SHAPES
async def test_a_row_approved_with_nothing_drawn_and_no_images_says_that_it_is_empty(
    a_house: Open, legacy: bool
) -> None:
    house = await a_house(legacy=legacy)
    row = house.simulator.create_row("study01")
    house.simulator.label(row, [])
    house.simulator.submit(row)
    house.simulator.approve(row)
    await house.export()
    assert house.pointer(row).ground_truth
    assert house.manifest(row).empty == ("A",)


@_SHAPES
async def test_a_deleted_row_is_deleted_when_two_answers_agree(a_house: Open, legacy: bool) -> None:
    house = await a_house(legacy=legacy)
    row = labelled(house.simulator)
    await house.export()
    house.simulator.delete_row(row)
    events = house.events()
    (first,) = await house.work(events)
    assert isinstance(first, Transient)
    assert (first.reason, first.after_s) == ("task-missing", 60.0)
    assert house.pointer(row).revision is not None
    asked = Failure(reason=first.reason, message="", at="2026-01-01T23:58:00.000000Z")
    (outcome,) = await house.work(events, asked)
    assert isinstance(outcome, Outcome)
    assert (house.pointer(row).change, house.pointer(row).revision) == ("deleted", None)


async def test_what_is_switched_off_is_no_part_of_the_document_and_nothing_else_changes(
    a_house: Open,
) -> None:
    names = ("attachments", "metadata_fields", "data_row_details", "project_details",
             "label_details", "performance_details")  # fmt: skip
    off = ", ".join(f"{name} = false" for name in names)
    ends = []
    for toml in ("", f"export_params = {{ {off} }}"):
        house = await a_house(toml)
        row = labelled(house.simulator)
        house.simulator.approve(row)
        await house.export()
        pointer = house.pointer(row)
        ends.append((house.masks(row), pointer.history, pointer.ground_truth_label))
    assert ends[0] == ends[1]
    document = house.document(row)
    told = canonical(document).decode()
    assert not any(f'"{name}"' in told for name in names)
    assert "details" not in document["data_row"]


async def test_switching_a_detail_off_shows_when_the_row_is_next_seen(a_house: Open) -> None:
    house = await a_house()
    row = labelled(house.simulator)
    events = house.events()
    await house.work(events)
    before = house.pointer(row)
    await house.again("export_params = { label_details = false }").work(events)
    after = house.pointer(row)
    assert after.revision != before.revision
    assert after.change == "moved"  # no mask was touched
    assert house.simulator.counters["mask GET"] == 1


async def test_one_bad_row_of_a_batch_is_its_own_failure(a_house: Open) -> None:
    house = await a_house()
    good = labelled(house.simulator)
    bad = labelled(house.simulator, Drawing("Axial", 1, "liver", png=b"no PNG", feature="odd"))
    events = house.events()
    results = dict(zip([e.task for e in events], await house.work(events), strict=False))
    assert house.pointer(good).revision is not None
    assert layout.pointer_key(house.simulator.project_id, bad) not in house.store.objects
    assert any(isinstance(result, Transient | Permanent) for result in results.values())
