"""``groundwire pull`` as a person types it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consumer.app_pull import Asked, wished
from consumer.cli import app
from consumer.stores.directory import DirectoryStore
from handlers.pull.state import HIDDEN, State, save
from tests.handlers.pull.lakes import PROJECT, Lake, Mask, tree
from tests.servers_s3 import use_credentials

Typed = Callable[..., Result]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(store=DirectoryStore(tmp_path / "lake"))


@pytest.fixture
def typed(tmp_path: Path) -> Typed:
    """Runs ``groundwire pull`` with these words, and where the lake is unless told otherwise."""

    def run(*words: str, lake: bool = True) -> Result:
        where = ["--lake", f"file://{tmp_path}/lake"] if lake else []
        environment = {"GROUNDWIRE_CONFIG": None, "GROUNDWIRE_LAKE": None}
        return CliRunner().invoke(app, ["pull", *words, *where], env=environment)

    return run


def write(lake: Lake, task: str, *masks: Mask, **told: str) -> None:
    asyncio.run(lake.task(task, *masks, **told))  # type: ignore[arg-type]


def test_the_only_project_needs_no_name(lake: Lake, typed: Typed, elsewhere: Path) -> None:
    write(lake, "t1", name="study01")
    result = typed()
    assert result.exit_code == 0, result.output
    assert "added 1: study01" in result.stdout
    assert tree(elsewhere / PROJECT) == ["segmentations/study01/series1.nii.gz", "tasks.json"]


def test_of_several_projects_one_must_be_named(lake: Lake, typed: Typed, elsewhere: Path) -> None:
    write(lake, "t1")
    write(Lake(store=lake.store, project="project-2"), "t1")
    result = typed()
    assert result.exit_code == 1
    assert "name one of project-1, project-2" in result.stderr
    assert typed("project-2", "there").exit_code == 0
    assert (elsewhere / "there/project-2/tasks.json").exists()


def test_an_empty_lake_is_said(typed: Typed) -> None:
    result = typed()
    assert (result.exit_code, "holds no project" in result.stderr) == (1, True)


@pytest.mark.parametrize("inside", [True, False])
def test_in_a_pulled_folder_or_beside_it_nothing_need_be_typed(
    inside: bool, lake: Lake, typed: Typed, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, "t1", name="one", truth="label-1")
    write(lake, "t2", name="two")
    typed("--ground-truth")
    write(lake, "t3", name="three", truth="label-1")
    if inside:
        monkeypatch.chdir(elsewhere / PROJECT)
    result = typed(lake=False)
    assert result.exit_code == 0, result.output
    assert "as the last time: --ground-truth" in result.stdout
    assert "added 1: three" in result.stdout
    assert len(tree(elsewhere / PROJECT)) == 3


def test_the_options_of_the_last_time_can_be_forgotten(
    lake: Lake, typed: Typed, elsewhere: Path
) -> None:
    write(lake, "t1", truth="label-1")
    write(lake, "t2")
    typed("--ground-truth")
    assert "added 1: study t2" in typed("--all", lake=False).stdout
    assert "as the last time" not in typed(lake=False).stdout


def test_a_lake_that_moved_is_told_once(
    lake: Lake, typed: Typed, tmp_path: Path, elsewhere: Path
) -> None:
    write(lake, "t1")
    typed()
    (tmp_path / "lake").rename(tmp_path / "moved")
    result = typed("--lake", f"file://{tmp_path}/moved", lake=False)
    assert "1 unchanged; 0 file(s)" in result.stdout
    assert typed(lake=False).exit_code == 0


def test_of_several_pulled_folders_one_must_be_named(lake: Lake, typed: Typed) -> None:
    write(lake, "t1")
    write(Lake(store=lake.store, project="project-2"), "t1")
    typed(PROJECT)
    typed("project-2")
    result = typed(lake=False)
    assert result.exit_code == 1
    assert "holds several: name one of project-1, project-2" in result.stderr
    assert typed("project-2", lake=False).exit_code == 0


def test_another_project_is_not_pulled_into_a_pulled_folder(
    lake: Lake, typed: Typed, elsewhere: Path
) -> None:
    write(lake, "t1")
    typed()
    result = typed("project-2", str(elsewhere / PROJECT))
    assert (result.exit_code, "name another DIR" in result.stderr) == (1, True)


def test_model_runs_are_refused_in_one_sentence(typed: Typed) -> None:
    result = typed("--model-run", "run-1")
    assert result.exit_code == 2
    assert result.stderr == "groundwire: --model-run: exports of model runs are not supported\n"


@pytest.mark.parametrize(
    "words", [["--since", "yesterday"], ["--until", "2026-02-30"],
              ["--label-created-since", "x"], ["--label-created-until", "x"],
              ["--since", "2026-02-02", "--until", "2026-02-01"],
              ["--layout", "nnunet", "--format", "png"]],
)  # fmt: skip
def test_what_cannot_be_meant_is_exit_code_2(words: list[str], lake: Lake, typed: Typed) -> None:
    write(lake, "t1")
    result = typed(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("groundwire: --")


def test_dates_reach_the_filters(lake: Lake, typed: Typed, elsewhere: Path) -> None:
    write(lake, "early", name="early", active_at="2026-01-01T23:59:59.999999Z")
    write(lake, "late", name="late", active_at="2026-01-02T00:00:00.000000Z")
    assert "added 1: late" in typed("--since", "2026-01-02").stdout
    told = typed("--until", "2026-01-01").stdout
    assert "added 1: early" in told
    assert "removed 1: late" in told
    assert "added 1: late" in typed("--since", "2026-01-02 01:00:00+01:00").stdout


def test_tasks_without_a_time_are_counted(lake: Lake, typed: Typed) -> None:
    write(lake, "t1", active_at=None)  # type: ignore[arg-type]
    assert "1 task(s) left out" in typed("--since", "2026-01-01").stderr


def test_what_failed_is_exit_code_1_with_its_reason(
    lake: Lake, typed: Typed, tmp_path: Path
) -> None:
    write(lake, "t1", name="study01")
    (file,) = (tmp_path / "lake").rglob("series1.nii.gz")
    file.unlink()
    result = typed()
    assert result.exit_code == 1
    assert "study01" in result.stderr
    assert "not in the lake" in result.stderr


def test_a_file_kept_aside_is_said(lake: Lake, typed: Typed, elsewhere: Path) -> None:
    write(lake, "t1", name="s")
    typed()
    (elsewhere / PROJECT / "segmentations/s/series1.nii.gz").write_bytes(b"mine")
    assert "kept-aside/segmentations/s/series1.nii.gz" in typed().stderr


def test_no_bar_is_drawn_where_nobody_looks(lake: Lake, typed: Typed) -> None:
    write(lake, "t1")
    assert "fetching" not in typed().output


def test_a_long_list_of_names_is_cut(lake: Lake, typed: Typed) -> None:
    for number in range(23):
        write(lake, f"t{number:02d}")
    assert "study t19 and 3 more" in typed().stdout


def test_a_damaged_state_is_said_and_nothing_touched(
    lake: Lake, typed: Typed, elsewhere: Path
) -> None:
    write(lake, "t1")
    typed()
    (elsewhere / PROJECT / ".groundwire-pull/state.json").write_text("{")
    result = typed()
    assert result.exit_code == 1
    assert "pull into a new DIR" in result.stderr
    assert len(json.loads((elsewhere / PROJECT / "tasks.json").read_text())) == 1


def test_another_s3_than_amazons_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_credentials(monkeypatch)
    (tmp_path / HIDDEN).mkdir()
    lake, endpoint = "s3://bucket/prefix", "http://127.0.0.1:1"
    save(tmp_path, State(project=PROJECT, lake=lake, endpoint=endpoint))
    _, wish = asyncio.run(wished(Asked(directory=tmp_path), environ={}))
    assert (wish.lake, wish.endpoint, wish.folder) == (lake, endpoint, tmp_path)
