"""``groundwire snapshot`` as a person types it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from consumer.app_adapters import LANES
from consumer.cli import app
from consumer.log.tail import LogTail
from consumer.model import LaneSpec, Record
from consumer.queues.sqlite import SqliteQueue
from consumer.stores.directory import DirectoryStore
from handlers import audit
from tests.handlers.lake_house import LakeHouse, lake_house
from tests.handlers.pull.lakes import tree

Typed = Callable[..., Result]
Story = Callable[[LakeHouse], Coroutine[Any, Any, None]]

CONFIG = """
queue = "sqlite:///{here}/queue.db"
lake = "file://{here}/lake"

[log]
origin = "example.org/ground-truth"

[sources.clinic]
platform = "redbrick"
secrets = ["env:TOKEN"]
api_key = "env:TOKEN"
organization = "org"
projects = ["project-1"]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", "tok-secret-1234567890")
    (tmp_path / "groundwire.toml").write_text(CONFIG.format(here=tmp_path))
    return tmp_path


@pytest.fixture
def typed() -> Typed:
    def run(*words: str) -> Result:
        environment = {"GROUNDWIRE_CONFIG": None, "GROUNDWIRE_LAKE": None, "COLUMNS": "200"}
        return CliRunner().invoke(app, ["snapshot", *words], env=environment)

    return run


def lived(here: Path, *steps: Story) -> None:
    """What happened to the tasks becomes a lake in a folder, with its log."""

    async def living() -> None:
        async with lake_house() as house:
            for step in steps:
                await step(house)
            store = DirectoryStore(here / "lake")
            for key, data in house.store.objects.items():
                if (await store.read(key)) is None:
                    await store.create(key, data)

    asyncio.run(living())


async def two_tasks(house: LakeHouse) -> None:
    await house.approve("t1", name="study one")
    await house.approve("t2", value=2)


def test_it_is_made_listed_shown_and_pulled(here: Path, typed: Typed) -> None:
    lived(here, two_tasks)
    made = typed("create", "lungs")
    assert made.exit_code == 0, made.output
    assert "stored" in made.stdout
    listed = typed("list")
    assert "lungs" in listed.stdout
    assert "2 task(s)" in listed.stdout
    shown = typed("show", "lungs", "--png", "picture.png")
    assert shown.exit_code == 0, shown.output
    assert "liver" in shown.stdout
    assert "split of tasks: train" in shown.stdout
    assert Image.open(here / "picture.png").format == "PNG"
    pulled = typed("pull", "lungs", "out")
    assert pulled.exit_code == 0, pulled.output
    (folder,) = (here / "out").iterdir()
    assert tree(folder) == [
        "segmentations/study one/series1.nii.gz",
        "segmentations/study t2/series1.nii.gz",
        "tasks.json",
    ]


def test_made_again_it_says_that_it_was_there(here: Path, typed: Typed) -> None:
    lived(here, two_tasks)
    first, second = typed("create"), typed("create")
    assert second.exit_code == 0
    assert "was there already" in second.stdout
    assert second.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]


def test_the_log_is_told_of_it_each_time_with_one_id(here: Path, typed: Typed) -> None:
    lived(here, two_tasks)
    typed("create")
    typed("create")
    records = asyncio.run(queued(here))
    assert all(record == records[0] for record in records)
    (entry,) = audit.entries_of(records[0])
    assert entry["id"].startswith("snapshot:ground-truth:")
    assert entry["key"].endswith("snapshot.json")


async def queued(here: Path) -> list[Record]:
    queue = SqliteQueue(here / "queue.db", LANES)
    await queue.open()
    lane = next(lane for lane in LANES if lane.name == "audit")
    found: list[Record] = []
    while (await queue.depth(lane)).ready:
        for lease in await queue.take(LaneSpec(name=lane.name, wants=lane.wants)):
            assert isinstance(lease.message, Record)
            found.append(lease.message)
    await queue.close()
    return found


def test_the_picture_goes_by_the_snapshots_name(here: Path, typed: Typed) -> None:
    lived(here, two_tasks)
    typed("create", "lungs")
    assert typed("show", "lungs").exit_code == 0
    (picture,) = here.glob("lungs-*.png")
    assert Image.open(picture).format == "PNG"


def test_a_difference_is_shown_and_given_as_json(here: Path, typed: Typed) -> None:
    sizes = []

    async def more(house: LakeHouse) -> None:
        sizes.append(await house.tail.size())
        await house.approve("t3", name="study three")
        await house.send_back("t2")

    lived(here, two_tasks, more)
    typed("create", "early", "--at", str(sizes[0]))
    typed("create", "late")
    told = typed("diff", "early", "late")
    assert told.exit_code == 0, told.output
    assert "added 1: project-1/study three" in told.stdout
    assert "1 added, 0 changed, 1 removed, 1 unchanged" in told.stdout
    found = json.loads(typed("diff", "early", "late", "--json").stdout)
    assert [one["task"] for one in found["removed"]] == ["t2"]


def test_a_changes_id_is_a_size_and_another_logs_is_refused(here: Path, typed: Typed) -> None:
    lived(here, two_tasks)
    tail = LogTail(DirectoryStore(here / "lake"))
    identity = asyncio.run(tail.identity())
    made = typed("create", "lungs", "--at", f"1@{identity}")
    assert "log size 2," in made.stdout
    other = typed("create", "lungs", "--at", "1@example.org/other~0123456789ab")
    assert other.exit_code == 1
    assert "--at is of another log" in other.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "lungs", "--class", "kidney"], "it holds liver, spleen"),
        (["create", "lungs", "--project", "elsewhere"], "the ground truth is of project-1"),
        (["create", "lungs", "--at", "99999"], "the log has"),
        (["create", "lungs", "--at", "soon"], "--at is a size of the log"),
        (["create", "../lungs"], "a snapshot's name is of a-z"),
        (["show", "nothing"], "the lake holds no snapshot nothing: there is none"),
        (["diff", "a", "b"], "there is none"),
        (["pull", "nothing"], "there is none"),
    ],
)
def test_what_cannot_be_meant_is_said(
    here: Path, typed: Typed, words: list[str], said: str
) -> None:
    lived(here, two_tasks)
    result = typed(*words)
    assert (result.exit_code, said in result.stderr) == (1, True), result.output
    assert not (here / "lake/snapshots").exists()


def test_a_ground_truth_of_nothing_is_refused(here: Path, typed: Typed) -> None:
    async def unfinished(house: LakeHouse) -> None:
        await house.see("t1")

    lived(here, unfinished)
    result = typed("create")
    assert (result.exit_code, "there is nothing to keep" in result.stderr) == (1, True)


def test_what_only_reads_needs_no_secret(
    here: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived(here, two_tasks)
    typed("create", "lungs")
    monkeypatch.delenv("TOKEN")
    for words in (["list"], ["show", "lungs"], ["diff", "lungs", "lungs"], ["pull", "lungs"]):
        result = typed(*words, "--lake", f"file://{here}/lake")
        assert result.exit_code == 0, result.output


def test_the_splits_key_and_patients_are_as_configured(here: Path, typed: Typed) -> None:
    async def a_patient(house: LakeHouse) -> None:
        for task in range(8):
            await house.approve(f"t{task}", name=f"patient7-scan{task}")

    lived(here, a_patient)
    with (here / "groundwire.toml").open("a") as opened:
        opened.write('\n[snapshots]\nkey = "env:TOKEN"\npatient = "^(.*)-scan"\n')
        opened.write("split = {a = 0.5, b = 0.5}\n")
    made = typed("create", "lungs")
    assert made.exit_code == 0, made.output
    shown = typed("show", "lungs").stdout
    assert "a 8 (50% wanted), b 0" in shown or "a 0 (50% wanted), b 8" in shown
    files = list((here / "lake/snapshots").rglob("*.json*"))
    assert len(files) == 2
    assert not any("tok-secret" in file.read_text() for file in files)


def test_a_pull_of_today_in_a_snapshots_folder_says_why_not(
    here: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived(here, two_tasks)
    typed("create", "lungs")
    typed("pull", "lungs", "out")
    (folder,) = (here / "out").iterdir()
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, ["pull"], env={"GROUNDWIRE_LAKE": None})
    assert result.exit_code == 1
    assert "holds the snapshot lungs/" in result.stderr
    assert "name another DIR" in result.stderr
