"""``groundwire report`` and ``groundwire verify`` as a stranger runs them, on a copy of a lake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from consumer.cli import app
from consumer.log.log import TileLog
from consumer.log.note import new_key
from consumer.stores.directory import DirectoryStore

TASK = {"source": "rb", "project": "p", "task": "t1"}
CREATED = {
    **TASK, "id": "history:1", "kind": "history", "history_id": "1", "type": "TASK_CREATED",
    "at": "2026-01-01T00:00:00.000000Z", "actor": "ann", "ground_truth": False,
}  # fmt: skip


def logged(folder: Path, entries: Sequence[dict[str, Any]]) -> str:
    """A lake with these entries in its log; the public key, told by another way."""

    async def write() -> str:
        signer = new_key(folder / "log.key", "example.org/log")
        log = TileLog(
            DirectoryStore(folder / "lake"),
            signer=signer,
            origin="example.org/log",
            index_path=None,
            clock=lambda: datetime(2026, 1, 2, tzinfo=UTC),
        )
        await log.append(entries)
        await log.close()
        return signer.verifier.vkey

    return asyncio.run(write())


def cli(folder: Path, *words: str) -> Result:
    """With nothing but the lake: no configuration, no queue, no secret."""
    lake = ["--lake", f"file://{folder}/lake"]
    return CliRunner().invoke(app, [*words, *lake], env={"GROUNDWIRE_CONFIG": None})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_one_task_is_reported_from_the_files_alone(tmp_path: Path) -> None:
    logged(tmp_path, [CREATED, {**CREATED, "id": "history:2", "task": "t2"}])
    (row,) = json.loads(cli(tmp_path, "report", "t2").stdout)
    assert row["taskId"] == "t2"
    assert row["events"][0]["createdBy"] == "ann"


def test_a_task_that_the_log_does_not_know_is_no_empty_report(tmp_path: Path) -> None:
    logged(tmp_path, [CREATED])
    result = cli(tmp_path, "report", "t9")
    assert result.exit_code == 1
    assert "tells of no task t9" in result.stderr


def test_a_lake_without_a_log_is_said_beside_the_empty_report(tmp_path: Path) -> None:
    result = cli(tmp_path, "report")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert "there is no log in" in result.stderr


def test_a_stranger_verifies_with_the_files_and_the_key(tmp_path: Path) -> None:
    vkey = logged(tmp_path, [CREATED])
    result = cli(tmp_path, "verify", "--key", vkey)
    assert result.exit_code == 0
    assert "the key you gave signed it" in result.stdout


def test_the_key_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "vkey").write_text(logged(tmp_path, [CREATED]) + "\n")
    assert cli(tmp_path, "verify", "--key", str(tmp_path / "vkey")).exit_code == 0


def test_a_flipped_byte_is_exit_code_1_and_its_place(tmp_path: Path) -> None:
    vkey = logged(tmp_path, [CREATED])
    (bundle,) = (tmp_path / "lake/log/tile/entries").rglob("1")
    bundle.write_bytes(bundle.read_bytes().replace(b"ann", b"bob"))
    result = cli(tmp_path, "verify", "--key", vkey)
    assert result.exit_code == 1
    assert "log/tile/entries/000.p/1, entry 0" in result.stdout


def test_another_key_is_found(tmp_path: Path) -> None:
    logged(tmp_path, [CREATED])
    other = new_key(tmp_path / "other.key", "example.org/log").verifier.vkey
    assert cli(tmp_path, "verify", "--key", other).exit_code == 1


UNSEEN = "\x9b2J\x7f\u202e\u2028\U000e0041[red]"


def test_nothing_in_an_enemys_log_commands_the_terminal_of_who_reads_its_report(
    tmp_path: Path,
) -> None:
    logged(tmp_path, [{**CREATED, "task": UNSEEN, "actor": UNSEEN}])
    done = cli(tmp_path, "report")
    assert all(character.isprintable() or character == "\n" for character in done.stdout)
    (row,) = json.loads(done.stdout)
    assert (row["taskId"], row["events"][0]["createdBy"]) == (UNSEEN, UNSEEN)


@pytest.mark.parametrize("lacking", ["task", "source", "type", "at"])
def test_an_entry_that_no_writer_of_ours_makes_ends_the_report_with_a_sentence(
    tmp_path: Path, lacking: str
) -> None:
    logged(tmp_path, [{name: value for name, value in CREATED.items() if name != lacking}])
    done = cli(tmp_path, "report")
    assert done.exit_code == 1
    assert "entry 0 of the log is none that this version knows" in done.stderr
