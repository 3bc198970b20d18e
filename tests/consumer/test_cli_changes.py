"""``groundwire changes`` as a person types it: lines of JSON straight from the lake."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from consumer.cli import app
from consumer.log.log import TileLog
from consumer.stores.directory import DirectoryStore
from tests.consumer.log.logs import ORIGIN, writer
from tests.consumer.streams import mixed, moves, truths

ENTRIES = mixed(700, seed=5)


def a_log(folder: Path) -> TileLog:
    return writer(DirectoryStore(folder / "lake"))


def append(folder: Path, entries: list[dict[str, Any]]) -> None:
    asyncio.run(a_log(folder).append(entries))


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    append(tmp_path, ENTRIES)
    return tmp_path


def changes(folder: Path, *words: str) -> Result:
    arguments = ["changes", "--lake", f"file://{folder}/lake", *words]
    return CliRunner().invoke(app, arguments, env={"GROUNDWIRE_CONFIG": None})


def indices(text: str) -> list[int]:
    return [json.loads(line)["index"] for line in text.splitlines()]


@contextmanager
def process(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    lake = ["--lake", f"file://{folder}/lake"]
    with subprocess.Popen(
        [sys.executable, "-m", "consumer.cli", "changes", *lake, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as started:
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()


def lines(started: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    assert started.stdout is not None
    return [json.loads(started.stdout.readline()) for _ in range(count)]


def test_each_move_is_one_line_with_its_place(lake: Path) -> None:
    result = changes(lake)
    assert result.exit_code == 0
    assert indices(result.stdout) == moves(ENTRIES)
    first = json.loads(result.stdout.splitlines()[0])
    assert first["id"].startswith(f"{first['index']}@{ORIGIN}~")
    assert first["task"] == f"task-{first['index']}"


def test_only_the_ground_truth_of_the_named_projects(lake: Path) -> None:
    result = changes(lake, "--ground-truth", "--project", "p-1", "--project", "key-p-2")
    assert indices(result.stdout) == truths(ENTRIES, projects=["p-1", "p-2"])


def test_it_goes_on_after_the_last_lines_id_or_index(lake: Path) -> None:
    last = json.loads(changes(lake).stdout.splitlines()[99])
    rest = moves(ENTRIES)[100:]
    assert indices(changes(lake, "--after", last["id"]).stdout) == rest
    assert indices(changes(lake, "--after", str(last["index"])).stdout) == rest


def test_who_has_seen_everything_sees_nothing_more(lake: Path) -> None:
    result = changes(lake, "--after", str(len(ENTRIES) - 1))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("after", "code", "said"),
    [
        ("soon", 2, "--after must be an index of the log, or an id that a change came with"),
        ("", 2, "--after must be an index of the log"),
        ("3@elsewhere~00", 1, f"the position is of another log; this is {ORIGIN}~"),
        ("700", 1, "the log has 700 entries: there is no index 700 yet"),
    ],
)
def test_a_place_that_cannot_be_gone_on_from_is_one_sentence(
    lake: Path, after: str, code: int, said: str
) -> None:
    result = changes(lake, "--after", after)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_lake_without_a_log_is_said(tmp_path: Path) -> None:
    result = changes(tmp_path)
    assert result.exit_code == 1
    assert f"the lake {tmp_path}/lake holds no log" in result.stderr


def test_following_it_prints_each_line_at_once_until_it_is_interrupted(lake: Path) -> None:
    more = [{**one, "id": f"{one['id']}-more"} for one in ENTRIES[:10]]
    with process(lake, "--follow", "--after", str(moves(ENTRIES)[-3])) as started:
        assert [one["index"] for one in lines(started, 2)] == moves(ENTRIES)[-2:]
        append(lake, more)
        expected = [700 + index for index in moves(more)]
        assert [one["index"] for one in lines(started, len(expected))] == expected
        started.send_signal(signal.SIGINT)
        assert started.wait(20) == 130


def test_following_it_waits_for_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    with process(tmp_path, "--follow") as started:
        assert started.stderr is not None
        assert "holds no log yet" in started.stderr.readline()
        append(tmp_path, ENTRIES[:20])
        assert [one["index"] for one in lines(started, 5)] == moves(ENTRIES)[:5]


def test_whoever_has_read_enough_may_close_the_pipe(lake: Path) -> None:
    with process(lake) as started:
        lines(started, 1)
        assert started.stdout is not None
        started.stdout.close()
        assert started.wait(20) == 0
        assert started.stderr is not None
        assert started.stderr.read() == ""


def test_nothing_in_an_enemys_log_commands_the_terminal_of_who_reads_the_changes(
    tmp_path: Path,
) -> None:
    unseen = "\x9b2J\u202e"
    one = ENTRIES[moves(ENTRIES)[0]]
    append(tmp_path, [{**one, "stage": unseen}])
    done = changes(tmp_path)
    assert all(character.isprintable() or character == "\n" for character in done.stdout)
    assert json.loads(done.stdout)["stage"] == unseen
