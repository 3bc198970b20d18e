"""A command on this machine: what it is told, how it is judged, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from consumer.errors import Permanent, Transient
from handlers.targets.command import CommandTarget
from handlers.targets.trigger import Fired
from tests.handlers.targets.peers import TRIGGER

ENVIRON = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "GROUNDWIRE_ADMIN_TOKEN": "s3cret"}

# Starts a child that would live for an hour, and writes both ids down.
WITH_A_CHILD = 'sleep 3600 & echo $$ $! > "$1.new" && mv "$1.new" "$1";'
STUBBORN = "trap '' TERM; "  # its child, too


def shell(script: str, *arguments: object) -> list[str]:
    return ["sh", "-c", script, "sh", *map(str, arguments)]


def python(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", script, *map(str, arguments)]


def a_command(command: list[str], *, timeout_s: float = 30, grace_s: float = 10) -> CommandTarget:
    return CommandTarget(command, environ=ENVIRON, timeout_s=timeout_s, grace_s=grace_s)


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_the_event_is_its_standard_input(tmp_path: Path) -> None:
    script = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    assert await a_command(python(script, tmp_path / "event")).fire(TRIGGER) == Fired()
    assert json.loads((tmp_path / "event").read_bytes()) == TRIGGER.event()


async def test_its_environment_holds_the_trigger_and_none_of_our_secrets(tmp_path: Path) -> None:
    script = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    await a_command(python(script, tmp_path / "environ")).fire(TRIGGER)
    told = json.loads((tmp_path / "environ").read_text())
    assert told["GROUNDWIRE_KEY"] == TRIGGER.key
    assert told["GROUNDWIRE_POLICY"] == "nightly"
    assert told["GROUNDWIRE_SNAPSHOT"] == TRIGGER.snapshot
    assert told["GROUNDWIRE_SNAPSHOT_KEY"] == TRIGGER.snapshot_key
    assert told["GROUNDWIRE_TASKS"] == "640"
    ours = {name for name in told if not name.startswith("GROUNDWIRE_")}
    assert ours - {"LC_CTYPE"} == {"PATH", "LANG"}  # Python sets the one itself
    assert "s3cret" not in json.dumps(told)


async def test_no_shell_reads_its_arguments(tmp_path: Path) -> None:
    script = "import json, sys; json.dump(sys.argv[2:], open(sys.argv[1], 'w'))"
    given = ["a b", "$HOME", "; true", "*"]
    await a_command(python(script, tmp_path / "arguments", *given)).fire(TRIGGER)
    assert json.loads((tmp_path / "arguments").read_text()) == given


async def test_a_command_need_not_read_its_input() -> None:
    assert await a_command(["true"]).fire(TRIGGER) == Fired()


async def test_what_it_prints_is_dropped_however_much_it_is(
    capfd: pytest.CaptureFixture[str],
) -> None:
    script = "import sys; print('Doe' * 10_000_000); print('Doe' * 1_000_000, file=sys.stderr)"
    assert await a_command(python(script)).fire(TRIGGER) == Fired()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("script", "reason", "said"),
    [
        ("import sys; sys.exit(75)", "command-busy", "75"),
        ("import sys; sys.exit('Doe, John')", "command-failed", "exit code 1"),
        ("import sys; sys.exit(3)", "command-failed", "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "command-failed", "signal 9"),
    ],
)
async def test_a_command_that_fails_is_tried_again(script: str, reason: str, said: str) -> None:
    with pytest.raises(Transient) as raised:
        await a_command(python(script)).fire(TRIGGER)
    assert raised.value.reason == reason
    assert said in raised.value.message
    assert "Doe" not in raised.value.message


@pytest.mark.parametrize("what", ["missing", "no-program", "folder", "nul"])
async def test_what_cannot_be_run_is_for_a_person(what: str, tmp_path: Path) -> None:
    plain = tmp_path / "train.sh"
    plain.write_text("#!/bin/sh\n")
    paths = {"missing": "no-such-program", "no-program": str(plain), "folder": str(tmp_path)}
    with pytest.raises(Permanent) as raised:
        await a_command([paths.get(what, "a\0b")]).fire(TRIGGER)
    assert raised.value.reason == "command-missing"


async def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    target = a_command(shell(f"{WITH_A_CHILD} wait", tmp_path / "pids"), timeout_s=1)
    with pytest.raises(Transient) as raised:
        await target.fire(TRIGGER)
    assert raised.value.reason == "command-timeout"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    await until(lambda: not any(map(alive, pids)))


async def test_children_that_ignore_the_first_signal_are_killed(tmp_path: Path) -> None:
    script = f"{STUBBORN} {WITH_A_CHILD} wait"
    target = a_command(shell(script, tmp_path / "pids"), timeout_s=1, grace_s=0.2)
    with pytest.raises(Transient):
        await target.fire(TRIGGER)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    await until(lambda: not any(map(alive, pids)))


async def test_a_command_has_time_to_end_by_itself(tmp_path: Path) -> None:
    script = "trap 'echo tidy > \"$1\"; exit 0' TERM; sleep 3600 & wait"
    with pytest.raises(Transient):
        await a_command(shell(script, tmp_path / "end"), timeout_s=1).fire(TRIGGER)
    assert (tmp_path / "end").read_text() == "tidy\n"


async def test_cancelling_ends_all_of_it(tmp_path: Path) -> None:
    target = a_command(shell(f"{WITH_A_CHILD} wait", tmp_path / "pids"))
    firing = asyncio.ensure_future(target.fire(TRIGGER))
    await until((tmp_path / "pids").exists)
    firing.cancel()
    await asyncio.wait([firing])
    assert firing.cancelled()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    await until(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("turns", range(6))
async def test_cancelling_ends_what_is_only_being_started(turns: int, tmp_path: Path) -> None:
    ours = {**ENVIRON, "TMPDIR": str(tmp_path)}
    command = shell("sleep 3600 & wait")
    firing = asyncio.ensure_future(
        CommandTarget(command, environ=ours, timeout_s=30, grace_s=10).fire(TRIGGER)
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - the command goes on, our loop does not
    firing.cancel()
    await asyncio.wait([firing])
    assert firing.cancelled()
    await until(lambda: not started_with(tmp_path))


def started_with(folder: Path) -> list[Path]:
    """The processes that run with this folder for their temporary files."""
    ours = f"TMPDIR={folder}\0".encode()
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if ours in (each / "environ").read_bytes():
                found.append(each)
    return found


async def test_cancelling_twice_does_not_wait_for_the_stubborn(tmp_path: Path) -> None:
    script = f"{STUBBORN} {WITH_A_CHILD} wait"
    target = a_command(shell(script, tmp_path / "pids"), grace_s=3600)
    firing = asyncio.ensure_future(target.fire(TRIGGER))
    await until((tmp_path / "pids").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    firing.cancel()
    await asyncio.wait([firing], timeout=0.1)
    firing.cancel()
    await asyncio.wait([firing])
    await until(lambda: not any(map(alive, pids)))


async def test_a_command_that_failed_leaves_no_child_behind(tmp_path: Path) -> None:
    with pytest.raises(Transient):
        await a_command(shell(f"{WITH_A_CHILD} exit 1", tmp_path / "pids")).fire(TRIGGER)
    child = int((tmp_path / "pids").read_text().split()[1])
    await until(lambda: not alive(child))


async def test_a_command_that_succeeded_may_leave_training_behind(tmp_path: Path) -> None:
    target = a_command(shell(f"{WITH_A_CHILD} exit 0", tmp_path / "pids"))
    assert await target.fire(TRIGGER) == Fired()
    leader, child = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    try:
        assert alive(child)
        assert not alive(leader)
    finally:
        os.kill(child, 9)


async def test_a_command_that_is_slow_holds_nobody_else_up() -> None:
    began = time.monotonic()
    firing = asyncio.ensure_future(a_command(["sleep", "60"]).fire(TRIGGER))
    await asyncio.sleep(0)
    assert time.monotonic() - began < 30
    firing.cancel()
    await asyncio.wait([firing])
