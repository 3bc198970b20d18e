"""``groundwire retrain``: what a person reads, and one sentence for each mistake."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from consumer.errors import Permanent
from handlers.retrain_policy import Policy
from tests.consumer.test_cli import cli, configured
from tests.handlers.retrain_house import RetrainHouse, retrain_house

POLICIES = """
[retrain.nightly]
min_changes = 2
quiet = "10m"
[retrain.nightly.target]
type = "command"
command = ["true"]

[retrain.livers]
classes = ["liver", "kidney"]
max_wait = "7d"
dry_run = true
[retrain.livers.target]
type = "command"
command = ["true"]
"""
NIGHTLY = Policy(name="nightly", min_changes=2, quiet_s=600, target="command")
OLD = Policy(name="old", min_changes=1, target="command")


def with_policies(folder: Path) -> dict[str, str]:
    environ = configured(folder)
    file = folder / "groundwire.toml"
    file.write_text(file.read_text() + POLICIES)
    return environ


@pytest.fixture
def lake(tmp_path: Path) -> dict[str, str]:
    """Two decisions in the log: one begun, one of a policy that is configured no more."""
    asyncio.run(_store(tmp_path / "lake"))
    return with_policies(tmp_path)


async def _store(folder: Path) -> None:
    async with retrain_house(NIGHTLY) as house:
        await house.lake.approve("a")
        await house.lake.approve("b")
        house.lake.pass_time(600)
        house.process()
        await house.settle()
        house.policies[:] = [NIGHTLY, OLD]
        house.target.fails = [Permanent("no-such-pipeline", "there is no such pipeline")]
        house.process()
        await house.settle()
        await house.lake.approve("c")
        await house.settle()
        _write(house, folder)


def _write(house: RetrainHouse, folder: Path) -> None:
    for key, data in house.lake.store.objects.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)


def test_every_decision_is_listed_with_what_became_of_it(lake: dict[str, str]) -> None:
    first, second, third = cli(lake, "retrain", "list").stdout.splitlines()
    assert first.startswith("nightly 1  2026-01-02T00:10:00  enough-changes  2 new, 0 changed  ")
    assert "log size 4  snapshot 4-all  triggered 2026-01-02T00:10:00  command run-1" in first
    assert second.endswith("not triggered yet (no-such-pipeline)")
    assert third.startswith("old 2  ")
    (only,) = cli(lake, "retrain", "list", "nightly").stdout.splitlines()
    assert only == first
    told = json.loads(cli(lake, "retrain", "list", "nightly", "--json").stdout)
    assert (told["decision"], told["triggered"]["reference"]) == (1, "run-1")


def test_the_list_needs_no_secret(lake: dict[str, str], tmp_path: Path) -> None:
    only = {"GROUNDWIRE_CONFIG": lake["GROUNDWIRE_CONFIG"]}
    assert cli(only, "retrain", "list").exit_code == 0
    empty = cli({}, "retrain", "list", "--lake", f"file://{tmp_path}/nothing")
    assert (empty.exit_code, empty.stdout) == (0, "nothing has been decided yet\n")


def test_the_status_says_what_each_policy_waits_for(lake: dict[str, str]) -> None:
    result = cli(lake, "retrain", "status")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "nightly: 1 decision(s); 1 task(s) pending (1 new, 0 changed); it waits for 2 task(s)"
    )
    assert lines[1].startswith("livers: 0 decision(s); 3 task(s) pending (3 new, 0 changed); it is")
    assert "a dry run: it decides, and starts nothing" in lines[2]
    assert "no ground truth has kidney yet, of 3 task(s)" in lines[3]
    assert "old 1, decided 2026-01-02T00:10:00, has not begun: the policy is not conf" in lines[4]


def test_a_decision_that_fails_is_shown_with_why_and_until_when(
    lake: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "groundwire.toml"
    file.write_text(file.read_text().replace("retrain.nightly", "retrain.old"))
    said = cli(lake, "retrain", "status").stdout
    assert "old 1, decided 2026-01-02T00:10:00, has not begun: no-such-pipeline, there is" in said
    assert "1 tries, the last at 2026-01-02T00:10:00; again 600 s later" in said


def test_a_status_without_a_policy_is_a_mistake(tmp_path: Path) -> None:
    result = cli(configured(tmp_path), "retrain", "status")
    assert (result.exit_code, "there is no policy; write" in result.stderr) == (2, True)


def test_a_status_before_there_is_a_log_says_so(tmp_path: Path) -> None:
    result = cli(with_policies(tmp_path), "retrain", "status")
    assert result.exit_code == 0
    assert "0 task(s) pending" in result.stdout
    assert "the follower has not run yet" in result.stdout


def test_a_policy_that_there_is_not_cannot_be_fired(lake: dict[str, str]) -> None:
    result = cli(lake, "retrain", "fire", "weekly", "--reason", "x")
    assert result.exit_code == 2
    assert result.stderr == "groundwire: there is no policy weekly: nightly, livers\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "Missing option '--reason'"),
        (("--reason", " "), 1, "give a reason of 1 to 2000 characters"),
        (("--reason", "x", "--by", "a\nb"), 1, "say who does it in 1 to 200 printable characters"),
        (("--reason", "x", "--within", "1"), 1, "does groundwire run, or groundwire work audit?"),
    ],
)
def test_what_keeps_a_person_from_firing_is_one_sentence(
    lake: dict[str, str], words: tuple[str, ...], code: int, said: str
) -> None:
    result = cli(lake, "retrain", "fire", "nightly", *words)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_an_empty_ground_truth_is_not_trained_on(tmp_path: Path) -> None:
    result = cli(with_policies(tmp_path), "retrain", "fire", "nightly", "--reason", "x")
    assert result.exit_code == 1
    assert "nothing of what nightly trains on is in the ground truth" in result.stderr
