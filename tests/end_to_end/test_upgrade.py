"""Today's processes go on where an older release was stopped or killed: its configuration, lake,
log, followers, and what waited in its queue, on SQLite and on RabbitMQ."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from consumer.cli import app
from tests.end_to_end.followers import the_mirror_is_a_plain_pull, the_table_is_one_built_anew
from tests.end_to_end.release import (
    ARCHIVES,
    Release,
    laid_out,
    pointers_of,
    raw_entries,
    release,
)
from tests.samples.releases import story
from tests.servers_rabbitmq import RabbitServer

EVERY_RELEASE = pytest.mark.parametrize("archive", ARCHIVES, ids=lambda one: one.name[:-7])
SPOILT = "spoilt"  # its dead letters are not replayed yet


async def ran(old: Release, *command: str) -> str:
    """A short command, in this process: each is started many times elsewhere."""
    args = [*command, "--config", str(old.place.configuration)]
    env = {k: v for k, v in old.place.environment.items() if k.startswith("GROUNDWIRE_")}
    done = await asyncio.to_thread(CliRunner().invoke, app, args, env=env)
    assert done.exit_code == 0, (done.stdout, done.stderr, done.exception)
    return done.stdout


async def what_waited_is_done(old: Release, without: tuple[str, ...]) -> None:
    """The lake is what the platforms hold, and the log has the old entries and each new one once;
    nothing was given up."""
    await old.settled(without)
    entries = await raw_entries(old.place)
    assert entries[: len(old.entries)] == old.entries
    new = [json.loads(one) for one in entries[len(old.entries) :]]
    assert [one for one in new if one["kind"] == "buried"] == []
    counted = Counter(json.loads(one)["id"] for one in entries)
    assert [name for name, times in counted.items() if times > 1] == []
    told_of = {name.partition(":")[2] for name in counted}  # an entry's id begins with its kind
    assert {json.loads(one["body"])["id"] for one in old.told["messages"]} <= told_of


async def the_old_log_still_verifies(old: Release) -> None:
    lake = old.place.directory / "lake" / "log"
    kept = old.place.directory / "kept-checkpoint"
    if not kept.exists():
        kept.write_bytes((lake / "checkpoint").read_bytes())
    await ran(old, "verify", "--key", str(lake / "vkey"), "--checkpoint", str(kept))


async def followers_went_on(old: Release, before: dict[str, bytes]) -> None:
    """From their cursors: what they had made is as it was, and what came is there as well."""
    folder = old.place.directory / "lake"
    for name, data in before.items():
        assert (folder / name).read_bytes() == data, name
    stored = json.loads((folder / "followers" / "table.json").read_text())
    assert stored["sequence"] > old.cursors["table"]["sequence"]
    assert await the_table_is_one_built_anew(old.place, old.place.directory / "tables") > 0
    assert await the_mirror_is_a_plain_pull(old.place) > 0
    decided = [one for one in await old.place.log() if one["kind"] == "decided"]
    assert [one["decision"] for one in decided] == list(range(1, len(decided) + 1))


def made_before(old: Release) -> dict[str, bytes]:
    """What nobody writes again: commits and files of the table, snapshots."""
    lake = old.place.directory / "lake"
    files = [*lake.glob("tables/**/*.parquet"), *lake.glob("tables/revisions/_delta_log/0*.json")]
    files += lake.glob("snapshots/*/*/*")
    return {str(one.relative_to(lake)): one.read_bytes() for one in files}


def only_what_was_drawn_since_is_fetched(old: Release, drawn: tuple[str, ...]) -> None:
    """A mask is fetched again only if its recipe changed, and none has: a stage that moved, a task
    that left the ground truth or was deleted keeps the files that the older release wrote."""
    now = pointers_of(old.place.directory)
    assert {task: one["recipe"] for task, one in old.pointers.items()} == {
        task: now[task]["recipe"] for task in old.pointers
    }
    assert old.place.downloads() == len(drawn)


@EVERY_RELEASE
async def test_on_sqlite_everything_goes_on_where_the_release_stopped(
    archive: Path, tmp_path: Path
) -> None:
    async with release(archive, tmp_path) as old:
        await the_old_log_still_verifies(old)
        assert "FAIL" not in await ran(old, "check")
        kept = made_before(old)
        old.place.start("run", "run")
        await old.place.listening()
        await what_waited_is_done(old, without=(SPOILT,))
        drawn = tuple(name for name in story.DRAWN_SINCE if name != SPOILT)
        only_what_was_drawn_since_is_fetched(old, drawn)

        await ran(old, "dead", "replay", "--all", "--reason", "drawn anew", "--by", "ann")
        await old.settled()
        assert "no dead letters" in await ran(old, "dead", "list")
        await people_go_on(old)
        await old.settled()
        only_what_was_drawn_since_is_fetched(old, (*story.DRAWN_SINCE, "late"))

        assert await old.place.stop("run") == 0
        await the_old_log_still_verifies(old)
        await followers_went_on(old, kept)
        await readers_go_on(old)


async def people_go_on(old: Release) -> None:
    redbrick, tasks = old.cast.redbrick, old.cast.tasks
    redbrick.label(tasks["late"])
    redbrick.approve(tasks["late"])
    redbrick.approve(tasks["late"], by="dora")
    redbrick.move(tasks["dicom"], "Label")
    old.cast.labelbox.approve(tasks["sent back"])
    await old.place.post_all(old.place.webhooks())


async def readers_go_on(old: Release) -> None:
    """Who read the changes up to a place, holds a pulled folder or a snapshot's id, or wants the
    report."""
    position = len(old.entries) - 1
    told = await ran(old, "changes", "--after", str(position))
    changes: list[dict[str, Any]] = [json.loads(line) for line in told.splitlines()]
    moves = [i for i, one in enumerate(await old.place.log()) if one["kind"] == "lake"]
    assert [int(one["index"]) for one in changes] == [i for i in moves if i > position]
    await ran(old, "snapshot", "pull", "kept", str(old.place.directory / "rebuilt"))
    (done,) = (old.place.directory / "rebuilt").glob("kept-*")
    assert list(done.glob("**/*.nii.gz"))
    assert json.loads(await ran(old, "report", old.cast.tasks["corrected"]))


@EVERY_RELEASE
async def test_on_rabbitmq_the_release_s_queues_and_messages_are_worked_off(
    archive: Path, tmp_path: Path, rabbitmq_server: RabbitServer
) -> None:
    async with (
        release(archive, tmp_path) as old,
        laid_out(rabbitmq_server, old.told) as prefix,
    ):
        old.place.environment = {
            **old.place.environment,
            "GROUNDWIRE_QUEUE": rabbitmq_server.url,
            "GROUNDWIRE_QUEUE_PREFIX": prefix,
        }
        old.place.start("run", "run")
        await old.place.listening()
        await what_waited_is_done(old, without=(SPOILT,))
        await ran(old, "dead", "replay", "--all", "--reason", "drawn anew", "--by", "ann")
        await old.settled()
        assert "no dead letters" in await ran(old, "dead", "list")
        only_what_was_drawn_since_is_fetched(old, story.DRAWN_SINCE)
        assert await old.place.stop("run") == 0
        await the_old_log_still_verifies(old)
