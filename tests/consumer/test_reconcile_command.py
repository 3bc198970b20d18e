"""``groundwire reconcile``: what it refuses, what it prints, what it queues."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from consumer.app import LANES
from consumer.cli_reconcile import _Bar
from consumer.model import Action, TaskEvent
from consumer.queues.sqlite import SqliteQueue
from consumer.stores.directory import DirectoryStore
from handlers import export
from tests.consumer.test_cli import cli, configured
from tests.handlers.export_house import House


def lake(folder: Path, *tasks: str) -> None:
    """A lake of the project ``project-1`` with these tasks, made with other rules than today's."""
    house = House(rules=House().rules.__class__(masks="binary"))
    house.store = DirectoryStore(folder / "lake")  # type: ignore[assignment]

    async def write() -> None:
        for task in tasks:
            await house.see(task)

    asyncio.run(write())


def queued(folder: Path) -> list[TaskEvent]:
    async def take() -> list[TaskEvent]:
        queue = SqliteQueue(folder / "queue.db", LANES)
        await queue.open()
        try:
            if (await queue.depth(export.LANE)).ready == 0:
                return []
            leases = await queue.take(export.LANE)
            return [one.message for one in leases if isinstance(one.message, TaskEvent)]
        finally:
            await queue.close()

    return asyncio.run(take())


PROJECT = {"GROUNDWIRE_SOURCES__RB__PROJECTS": "project-1"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nobody"], "no [sources.nobody] is configured: there are rb"),
        (["--project", "other"], "--project other: no source's projects name it"),
        (["rb", "--project", "other"], "([sources.rb])"),
        (["--since", "soon"], "--since: 'soon' is no date"),
        (["--since", "2026-01-02", "--until", "2026-01-01"], "the beginning is after the end"),
        (["--accept-missing"], "--accept-missing is of --full: only that finds missing tasks"),
        (["--full", "--stale"], "--full is of all tasks: leave --stale out"),
        (["--full", "--until", "2026-01-01"], "--full is of all tasks: leave a window out"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_and_exit_code_2(
    tmp_path: Path, args: list[str], said: str
) -> None:
    result = cli(configured(tmp_path, **PROJECT), "reconcile", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_without_any_source_there_is_nothing_to_sweep(tmp_path: Path) -> None:
    (tmp_path / "groundwire.toml").write_text("")
    environ = {"GROUNDWIRE_CONFIG": str(tmp_path / "groundwire.toml")}
    result = cli(environ, "reconcile")
    assert result.exit_code == 2
    assert "add [sources.NAME]" in result.stderr


def test_a_dry_run_prints_what_would_be_queued_and_leaves_no_trace(tmp_path: Path) -> None:
    lake(tmp_path, "a", "b")
    before = sorted(tmp_path.rglob("*"))
    result = cli(configured(tmp_path, **PROJECT), "reconcile", "--stale", "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "rb project-1 (stale): 2 seen, 2 to look at (2 stale), nothing queued (dry run)",
        "  stale: a, b",
    ]
    assert {path.name for path in set(tmp_path.rglob("*")) - set(before)} <= {"groundwire.toml"}


def test_what_older_settings_made_is_queued_and_who_exports_it_is_said(tmp_path: Path) -> None:
    lake(tmp_path, "a", "b")
    environ = configured(tmp_path, **PROJECT)
    result = cli(environ, "reconcile", "rb", "--stale")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "rb project-1 (stale): 2 seen, 2 to look at (2 stale), 2 queued",
        "`groundwire run` or `groundwire work export` exports what is queued",
    ]
    found = queued(tmp_path)
    assert [(one.task, one.gap, one.action) for one in found] == [
        ("a", "stale", Action.SWEEP),
        ("b", "stale", Action.SWEEP),
    ]
    state = json.loads((tmp_path / "lake" / "sweeps" / "rb.json").read_text())
    assert state["projects"] == {"project-1": {}}


def test_a_window_is_of_the_lakes_times_where_the_lake_alone_is_asked(tmp_path: Path) -> None:
    lake(tmp_path, "a")
    environ = configured(tmp_path, **PROJECT)
    early = cli(environ, "backfill", "--stale", "--until", "2026-01-01", "--dry-run")
    assert "1 seen, 0 to look at, nothing queued" in early.stdout
    on_the_day = cli(environ, "backfill", "--stale", "--since", "2026-01-02", "--dry-run")
    assert "1 seen, 1 to look at (1 stale)" in on_the_day.stdout


def test_a_source_whose_state_is_refused_fails_alone_and_says_what_to_do(tmp_path: Path) -> None:
    lake(tmp_path, "a")
    (tmp_path / "lake" / "sweeps").mkdir()
    (tmp_path / "lake" / "sweeps" / "rb.json").write_text("{")
    environ = configured(tmp_path, **PROJECT)
    text = (tmp_path / "groundwire.toml").read_text()
    other = text.partition("[sources.rb]")[2].partition("[retry]")[0]
    (tmp_path / "groundwire.toml").write_text(f"{text}\n[sources.other]{other}")
    environ["GROUNDWIRE_SOURCES__OTHER__PROJECTS"] = "project-2"
    result = cli(environ, "reconcile", "--stale")
    assert result.exit_code == 1
    assert "sweeps/rb.json is no state of rb's sweeps" in result.stderr
    assert "other project-2 (stale): 0 seen" in result.stdout


def test_without_a_known_project_it_says_so(tmp_path: Path) -> None:
    result = cli(configured(tmp_path), "reconcile", "--dry-run")
    assert (result.exit_code, result.stdout.startswith("no project is known yet")) == (0, True)


def test_it_waits_for_room_in_the_lane_and_says_so_once() -> None:
    from consumer import cli_reconcile

    with Progress(console=Console(quiet=True)) as progress:
        bar = _Bar(progress)
        with cli_reconcile.err.capture() as said:
            bar.begins("p", "full")
            bar.waits("queue-full", 2100)
            bar.waits("queue-full", 2050)
            bar.seen(100, 500)
            bar.waits("platform-down", 0)
    assert said.get().splitlines() == [
        "groundwire: waits: 2100 events wait to be exported; is `groundwire work export` running?",
        "groundwire: waits: tries again: platform-down",
    ]
    assert (progress.tasks[0].completed, progress.tasks[0].total) == (100, 500)
