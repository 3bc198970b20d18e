"""Whatever a platform does and however its webhooks arrive, the lake holds what the platform holds.

Two exporters share one store. Events come late, twice, in any order and in batches, the answers to
them may lag, an exporter may be interrupted between its fetch and its swap, or die at any call.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import nibabel
import numpy as np
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consumer.errors import Permanent, Transient
from consumer.model import (
    ExportRules,
    FileRef,
    Manifest,
    Missing,
    Outcome,
    Pointer,
    TaskSnapshot,
    decode,
    digest,
)
from consumer.ports import Result
from handlers import layout
from handlers.pointers import label_version
from tests.fakes_platform import PROJECT, event
from tests.fakes_store import Fault, FaultyStore
from tests.faults import changing_platform as platform
from tests.faults.changing_platform import SHAPE, Account, Task, Voxels, World, voxels_of
from tests.faults.two_exporters import Crash, Exporters, Waiting
from tests.handlers.export_house import House, OneWork
from tests.seeds import seeds

TASKS = ("one", "two")
RULES = (
    ExportRules(),
    ExportRules(when="ground-truth"),
    ExportRules(stages=("Review_1",)),
    ExportRules(formats=("nifti", "other")),
)
names = st.sampled_from(TASKS)
numbers = st.integers(0, 29)
changes = st.sampled_from(platform.CHANGES)
faults = st.none() | st.tuples(st.integers(1, 10), st.sampled_from(Fault), st.booleans())
picks = st.lists(numbers, min_size=1, max_size=5)


class ExportMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = World({name: Task(name) for name in TASKS})
        self.world.tasks["one"].labels["a"] = platform.Drawn(0, None)
        self.both = Exporters(self.world)
        self.sequences: dict[str, int] = {}
        self.shown: dict[str, int] = {}  # by task: which answer its pointer shows
        self.checked: dict[str, Voxels] = {}

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.runner.close()

    # rules

    @rule(change=changes, name=names, number=numbers, lost=st.booleans(), much=st.booleans())
    def the_platform_changes(
        self, change: Any, name: str, number: int, lost: bool, much: bool
    ) -> None:
        self.world.remember()
        change(self.world, self.world.tasks[name], number)
        if not lost:
            self.both.waiting.append(Waiting(self.both.announce(name, tells_much=much)))

    @rule(change=changes, name=names, number=numbers, who=st.integers(0, 1), fault=faults)
    def a_change_is_seen_at_once(
        self, change: Any, name: str, number: int, who: int, fault: Any
    ) -> None:
        self.the_platform_changes(change, name, number, lost=True, much=False)
        self.deliver(who, [Waiting(self.both.announce(name))], fault)

    @rule(chosen=picks, who=st.integers(0, 1), again=st.booleans(), fault=faults)
    def events_arrive(self, chosen: list[int], who: int, again: bool, fault: Any) -> None:
        self.deliver(who, self.both.pick(chosen, again=again), fault)

    def deliver(self, who: int, taken: Sequence[Waiting], fault: Any) -> None:
        house = self.both.houses[who]
        sound = house.store
        if fault is not None:
            number, when, dies = fault
            plan = {number: when}
            faulty = FaultyStore(sound, plan, Crash) if dies else FaultyStore(sound, plan)
            house.store = cast(Any, faulty)
        self.runner.run(self.both.deliver(house, taken))
        house.store = sound

    @rule(changes=st.tuples(changes, changes), name=names, number=numbers, who=st.integers(0, 1))
    def one_exporter_overtakes_the_other(
        self, changes: tuple[Any, Any], name: str, number: int, who: int
    ) -> None:
        """The slow one has fetched, then the task changes and the fast one is done with it."""
        slow, fast = self.both.houses[who], self.both.houses[1 - who]
        self.the_platform_changes(changes[0], name, number, lost=True, much=False)

        async def meanwhile() -> None:
            self.the_platform_changes(changes[1], name, number, lost=True, much=False)
            await self.both.deliver(fast, [Waiting(self.both.announce(name))])

        slow.platform.before_answer = meanwhile
        self.runner.run(self.both.deliver(slow, [Waiting(self.both.announce(name))]))
        slow.platform.before_answer = None

    @rule(name=names, number=numbers)
    def the_next_answer_lags(self, name: str, number: int) -> None:
        copies = self.world.tasks[name].copies
        if copies:
            self.world.lagging[name] = copies[-1 - number % len(copies)]

    @rule()
    def a_minute_passes(self) -> None:
        self.both.a_minute_passes()
        self.world.forget()

    @rule(rules=st.sampled_from(RULES), who=st.integers(0, 2))
    def the_settings_change(self, rules: ExportRules, who: int) -> None:
        for house in self.both.houses if who == 2 else [self.both.houses[who]]:
            house.rules = rules

    @rule()
    def all_settles(self) -> None:
        self.settle()

    # what holds at every step

    @invariant()
    def every_pointer_shows_an_answer_and_none_goes_back(self) -> None:
        for name in TASKS:
            pointer = self.pointer(name)
            if pointer is None or pointer.sequence == self.sequences.get(name):
                continue
            assert pointer.sequence > self.sequences.get(name, 0)
            self.sequences[name] = pointer.sequence
            answers = self.world.answered[name]
            same = [n for n, answer in enumerate(answers) if shows(pointer, answer)]
            assert same, f"{name}: the pointer shows what the platform never answered"
            assert same[-1] >= self.shown.get(name, 0), f"{name}: the pointer went back"
            self.shown[name] = same[-1]
            answer = answers[same[-1]]
            if isinstance(answer, TaskSnapshot):
                assert set(pointer.workflow) <= {item.id for item in answer.history}, "it is stale"
            self.check_files(pointer, answer)

    @invariant()
    def the_store_was_used_as_it_must_be(self) -> None:
        self.both.store.assert_sound()
        crashed = [one for one in self.both.results if is_crash(one)]
        assert not crashed, [repr(one.__cause__) for one in crashed]  # type: ignore[union-attr]

    @invariant()
    def nothing_is_left_running(self) -> None:
        assert not asyncio.all_tasks(self.runner.get_loop())

    # what holds when all is quiet

    def settle(self) -> None:
        self.both.houses[1].rules = self.both.houses[0].rules
        self.world.forget()
        self.both.events += 1
        sweep = f"sweep-{self.both.events}"
        works = [Waiting(OneWork(event(name, name=sweep))) for name in TASKS]
        rest, self.both.waiting = self.both.waiting, works
        for _ in range(3):
            self.both.a_minute_passes()
            due = self.both.pick(range(len(self.both.waiting)), again=False)
            self.runner.run(self.both.deliver(self.both.houses[0], due))
        assert not self.both.waiting, "it never settles"
        self.both.waiting = rest
        self.every_pointer_shows_an_answer_and_none_goes_back()
        for name in TASKS:
            self.check_settled(name)
        self.check_outcomes()

    def check_settled(self, name: str) -> None:
        now, pointer = self.world.now(name), self.pointer(name)
        if pointer is None:
            assert isinstance(now, Missing)
            return
        assert shows(pointer, now), f"{name}: lake and platform differ"
        self.check_files(pointer, now)
        rules = self.both.houses[0].rules
        wanted = isinstance(now, TaskSnapshot) and rules.wants(
            now.stage, ground_truth=now.ground_truth
        )
        annotated = isinstance(now, TaskSnapshot) and any(not one.skipped for one in now.labels)
        assert (pointer.revision is not None) == (wanted and annotated)
        if isinstance(now, TaskSnapshot) and pointer.revision is not None:
            self.check_texts(pointer, now)

    def check_texts(self, pointer: Pointer, now: TaskSnapshot) -> None:
        """Document and taxonomy are today's, and the revision is what a first export makes."""
        manifest = self.manifest(pointer)
        files = {file.path: file for file in manifest.files}
        document = json.loads(self.both.store.objects[files["annotations.json"].key])
        named = [mask.key for mask in manifest.files if mask.label is not None]
        told = [
            series.pop("segmentations")
            for label in document["labels"]
            for series in label["series"]
            if "segmentations" in series
        ]
        assert sorted(told) == sorted(named)
        assert document == now.document
        assert manifest.taxonomy_key is not None
        assert json.loads(self.both.store.objects[manifest.taxonomy_key]) == now.taxonomy
        first = House()
        first.platform = Account(World(self.world.tasks, self.world.categories))
        (result,) = self.runner.run(first.handle(event(pointer.task)))
        assert isinstance(result, Outcome)
        assert result.move.revision == pointer.revision, "its revision depends on its past"

    def check_files(self, pointer: Pointer, answer: TaskSnapshot | Missing) -> None:
        if pointer.revision is None:
            return
        assert isinstance(answer, TaskSnapshot), "a deleted task has a revision"
        manifest = self.manifest(pointer)
        masks = {file.path: file for file in manifest.files if file.label is not None}
        expected = expected_masks(answer)
        assert masks.keys() == expected.keys()
        for path, (label, series, reference) in expected.items():
            file = masks[path]
            assert (file.label, file.series) == (label, series)
            drawn = voxels_of(reference) if reference else np.zeros(SHAPE, np.uint8)
            assert np.array_equal(self.voxels(file), drawn), f"{path} is not {reference}"
            counted = {one.value: (one.voxels, one.category) for one in file.labels}
            assert counted == table(drawn, answer)

    def check_outcomes(self) -> None:
        told: dict[str, Outcome] = {}
        puts = [message for put in self.both.houses[0].queue.puts for message in put]
        for one in (*self.both.results, *puts):
            if isinstance(one, Outcome):
                assert told.setdefault(one.id, one) == one, "one id, two outcomes"
        for name in TASKS:
            own = [one for one in told.values() if one.task == name]
            pointer = self.pointer(name)
            last = pointer.sequence if pointer else 0
            assert sorted(one.move.sequence for one in own) == list(range(1, last + 1))
            items = Counter(item.id for one in own for item in one.history)
            assert all(count == 1 for count in items.values()), "one item, two outcomes"
            if not self.world.tasks[name].gone:
                assert {item.id for item in self.world.tasks[name].history} <= items.keys()

    # reading the lake, by nothing of the export's own

    def pointer(self, name: str) -> Pointer | None:
        data = self.both.store.objects.get(layout.pointer_key(PROJECT, name))
        return decode(data, Pointer) if data else None

    def manifest(self, pointer: Pointer) -> Manifest:
        assert pointer.manifest is not None
        data = self.both.store.objects[pointer.manifest]
        assert digest(data) == pointer.revision == pointer.manifest_sha256
        return decode(data, Manifest)

    def voxels(self, file: FileRef) -> Voxels:
        if file.key not in self.checked:
            data = self.both.store.objects[file.key]
            image = nibabel.Nifti1Image.from_bytes(gzip.decompress(data))
            self.checked[file.key] = np.asanyarray(image.dataobj)
        return self.checked[file.key]


def shows(pointer: Pointer, answer: TaskSnapshot | Missing) -> bool:
    if isinstance(answer, Missing):
        return pointer.change == "deleted" and not pointer.ground_truth
    return pointer.change != "deleted" and (
        (pointer.stage, pointer.ground_truth, pointer.ground_truth_label, pointer.label_version)
        == (answer.stage, answer.ground_truth, answer.ground_truth_label, label_version(answer))
    )


def expected_masks(answer: TaskSnapshot) -> dict[str, tuple[str, str | None, str | None]]:
    """By path: label, series, and the reference of the mask (None: an empty label map)."""
    expected: dict[str, tuple[str, str | None, str | None]] = {}
    for label in answer.labels:
        folder = f"{label.id}/" if len(answer.labels) > 1 else ""
        files = layout.series_names([series.name for series in label.series])
        for series, file in zip(label.series, files, strict=True):
            path = f"segmentations/{folder}{file}.nii.gz"
            if series.masks:
                expected[path] = (label.id, series.name, series.masks[0].reference)
            elif answer.ground_truth_label == label.id:
                expected[path] = (label.id, series.name, None)
    return expected


def table(drawn: Voxels, answer: TaskSnapshot) -> dict[int, tuple[int, str | None]]:
    categories = {s.value: s.category for s in answer.labels[0].series[0].segments}
    found, counts = np.unique(drawn[drawn > 0], return_counts=True)
    return {int(v): (int(n), categories[int(v)]) for v, n in zip(found, counts, strict=True)}


def is_crash(result: Result) -> bool:
    return isinstance(result, Transient | Permanent) and result.reason == "export-crashed"


TestExportMachine = seed(seeds().start)(ExportMachine).TestCase
TestExportMachine.settings = settings(
    database=None,
    max_examples=3 * len(seeds()),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
