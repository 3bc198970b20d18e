"""The commands: help that teaches, one clear sentence for each mistake, and real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from consumer.app import PROBES
from consumer.cli import app
from handlers import layout

TOKEN = "tok-secret-123456"
COMMANDS = [
    ["run"], ["receive"], ["work"], ["follow"], ["check"], ["demo"], ["verify"], ["report"], ["gc"],
    ["dead", "list"], ["dead", "show"], ["dead", "replay"], ["dead", "drop"],
    ["key", "new"], ["key", "show"], ["pull"], ["show"], ["calibrate"], ["changes"],
    ["snapshot", "create"], ["snapshot", "list"], ["snapshot", "show"], ["snapshot", "diff"],
    ["snapshot", "pull"], ["retrain", "list"], ["retrain", "status"], ["retrain", "fire"],
    ["reconcile"], ["backfill"],
]  # fmt: skip


def configured(folder: Path, **more: str) -> dict[str, str]:
    """A configuration in ``folder``, and the environment that goes with it."""
    (folder / "groundwire.toml").write_text(
        f"""
        queue = "sqlite://{folder}/queue.db"
        lake = "file://{folder}/lake"
        [http]
        listen = "127.0.0.1:0"
        [admin]
        listen = "127.0.0.1:0"
        [sources.rb]
        platform = "redbrick"
        secrets = ["env:HOOK"]
        api_key = "env:KEY"
        api_url = "http://127.0.0.1:9"
        organization = "org1"
        [retry]
        attempts = 1
        """
    )
    return {
        "HOOK": TOKEN,
        "KEY": "k" * 43,
        "GROUNDWIRE_CONFIG": str(folder / "groundwire.toml"),
        **more,
    }


def cli(environ: dict[str, str], *args: str) -> Result:
    return CliRunner().invoke(app, list(args), env=environ)


class Running:
    """A real ``groundwire`` process."""

    def __init__(self, process: subprocess.Popen[str], lines: list[dict[str, Any]]) -> None:
        self.process = process
        self.lines = lines

    def port(self, what: str) -> int:
        where = self.wait(lambda line: line["event"] == "listening" and line["what"] == what)
        return int(str(where["address"]).rpartition(":")[2])

    def wait(self, wanted: Any) -> dict[str, Any]:
        """The first log line that fits; pytest-timeout is the deadline."""
        for line in self.lines:
            if wanted(line):
                return line
        assert self.process.stderr is not None
        for text in self.process.stderr:
            assert TOKEN not in text
            said: dict[str, Any] = json.loads(text)
            self.lines.append(said)
            if wanted(said):
                return said
        raise AssertionError(f"it ended: {self.lines}")

    def ask(self, port: int, path: str, body: bytes | None = None) -> tuple[int, str]:
        try:
            url = f"http://127.0.0.1:{port}{path}"
            with urllib.request.urlopen(url, body, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@contextmanager
def process(environ: dict[str, str], *args: str) -> Iterator[Running]:
    with subprocess.Popen(
        [sys.executable, "-m", "consumer.cli", *args],
        env={**os.environ, **environ},
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            yield Running(started, [])
        finally:
            if started.poll() is None:
                started.kill()


def logged(metrics: str) -> int:
    found = re.search(r"^groundwire_log_entries (\d+)", metrics, re.MULTILINE)
    return int(found[1]) if found else 0


def spoil(folder: Path, task: str) -> None:
    """What the lake holds of the task cannot be read, so that its event is buried."""
    pointer = folder / "lake" / layout.pointer_key("p1", task)
    pointer.parent.mkdir(parents=True)
    pointer.write_bytes(b"not a pointer")


def webhook(task: str = "t1") -> bytes:
    data = {"orgId": "org1", "projectId": "p1", "taskId": task, "stageName": "Label"}
    event = {"event": "TASK_ENTERED_STAGE", "id": task, "timestamp": 1_700_000_000, "data": data}
    return json.dumps({"version": "v1.0", "events": 1, "payload": [event]}).encode()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_teaches_with_an_example(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    text = re.sub(r"\s+", " ", result.output)
    assert f"Example: groundwire {' '.join(command)}" in text


def test_no_command_has_been_forgotten() -> None:
    group = typer.main.get_command(app)
    assert set(getattr(group, "commands", {})) == {one[0] for one in COMMANDS}


def test_a_mistake_in_the_configuration_is_one_line_each_and_exit_code_2(tmp_path: Path) -> None:
    environ = configured(tmp_path, HOOK="", GROUNDWIRE_HTTP__LISTEM="x")
    result = cli(environ, "run")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "groundwire: http.listem: unknown key (did you mean listen?)",
        "groundwire: sources.rb.secrets[0]: env:HOOK is empty",
    ]


def test_a_file_that_is_not_there_is_exit_code_2(tmp_path: Path) -> None:
    result = cli({}, "run", "--config", str(tmp_path / "none.toml"))
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr


def test_the_configuration_may_be_named_before_the_command_too(tmp_path: Path) -> None:
    result = cli({}, "--config", str(tmp_path / "none.toml"), "run")
    assert (result.exit_code, "cannot be read" in result.stderr) == (2, True)
    assert cli({}, "-c", str(tmp_path / "none.toml"), "report").exit_code == 2


def test_nothing_runs_without_a_source(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text(f'queue = "sqlite://{tmp_path}/q.db"\n')
    result = cli({}, "receive", "-c", str(tmp_path / "empty.toml"))
    assert result.exit_code == 2
    assert "sources: there is none" in result.stderr


def test_a_lane_that_does_not_exist_is_said(tmp_path: Path) -> None:
    result = cli(configured(tmp_path), "work", "exprot")
    assert result.exit_code == 2
    assert "the lanes are export and audit" in result.stderr


def test_the_defaults_are_printed_as_they_can_be_stored() -> None:
    result = CliRunner().invoke(app, ["check", "--defaults"])
    assert result.exit_code == 0
    assert result.stdout.startswith("# groundwire.toml")


def test_check_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    result = cli(configured(tmp_path), "check")
    assert result.exit_code == 1
    said = re.sub(r"\s+", " ", result.stdout)
    assert "ok queue" in said
    assert "ok lake" in said
    assert "FAIL sources.rb" in said
    assert "Look at api_url" in said


def test_a_key_is_made_once_and_shown_without_its_secret(tmp_path: Path) -> None:
    file = tmp_path / "log.key"
    made = cli({}, "key", "new", "--file", str(file), "--origin", "example.org/log")
    assert made.exit_code == 0
    assert made.stdout.startswith("example.org/log+")
    assert file.stat().st_mode & 0o777 == 0o600
    assert cli({}, "key", "show", "--file", str(file)).stdout == made.stdout
    again = cli({}, "key", "new", "--file", str(file))
    assert (again.exit_code, "never written over" in again.stderr) == (1, True)


def test_run_keeps_what_it_accepts_and_stops_in_order(tmp_path: Path) -> None:
    environ = configured(tmp_path)
    with process(environ, "run") as running:
        hooks, admin = running.port("hooks"), running.port("admin")
        assert running.ask(hooks, "/hooks/rb", webhook())[0] == 401
        assert running.ask(hooks, f"/hooks/rb?token={TOKEN}", webhook())[0] == 202
        assert running.ask(admin, "/readyz") == (200, '{"ready": true}')
        running.wait(lambda line: line["event"] == "source paused")  # there is no platform
        deadline = time.monotonic() + 20
        while logged(running.ask(admin, "/metrics")[1]) < 3:  # started, receipt, paused
            assert time.monotonic() < deadline
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        running.wait(lambda line: line["event"] == "stopped")
        assert running.process.wait(10) == 0
        assert time.monotonic() - began < 10
    assert (tmp_path / "log.key").stat().st_mode & 0o777 == 0o600
    sound = cli(environ, "verify", "--key", cli(environ, "key", "show").stdout.strip())
    assert sound.exit_code == 0, sound.output
    assert "the key you gave signed it" in sound.stdout


def test_dead_letters_are_listed_shown_replayed_and_dropped(tmp_path: Path) -> None:
    environ = configured(tmp_path)
    for task in ("t1", "t2"):
        spoil(tmp_path, task)
    with process(environ, "run") as running:
        url = f"/hooks/rb?token={TOKEN}"
        assert running.ask(running.port("hooks"), url, webhook("t1"))[0] == 202
        assert running.ask(running.port("hooks"), url, webhook("t2"))[0] == 202
        for task in ("t1", "t2"):
            running.wait(lambda line, t=task: (line["event"], line.get("task")) == ("buried", t))
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(10) == 0
    listed = cli(environ, "dead", "list", "--json").stdout.splitlines()
    first, second = (json.loads(line)["message"]["id"] for line in listed)
    head, *rows = cli(environ, "dead", "list").stdout.splitlines()  # not cut short in a pipe
    assert head.split()[0] == "id"
    assert [row.split()[:4] for row in rows] == [
        [one, "export", "pointer-unreadable", "1"] for one in (first, second)
    ]
    assert all("is no pointer of this version" in row for row in rows)
    shown = json.loads(cli(environ, "dead", "show", first).stdout)
    assert shown["failure"]["reason"] == "pointer-unreadable"
    assert cli(environ, "dead", "replay", first).exit_code == 2  # no reason given
    replayed = cli(environ, "dead", "replay", first, "--reason", "the platform is back")
    assert (replayed.exit_code, first in replayed.stdout) == (0, True)
    dropped = cli(environ, "dead", "drop", "--all", "--reason", "a test", "--by", "ann@desk")
    assert (dropped.exit_code, second in dropped.stdout) == (0, True)
    assert cli(environ, "dead", "list").stdout == "no dead letters\n"
    assert cli(environ, "dead", "show", "zzzz").exit_code == 1


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    environ = configured(tmp_path)
    with process(environ, "run") as running:
        taken = running.port("admin")
        running.port("hooks")
        other = {**environ, "GROUNDWIRE_ADMIN__LISTEN": f"127.0.0.1:{taken}"}
        result = subprocess.run(
            [sys.executable, "-m", "consumer.cli", "receive"],
            env={**os.environ, **other},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert result.returncode == 1
    assert f"groundwire: admin: cannot listen on 127.0.0.1:{taken}" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_lakes_readers_need_no_secret(tmp_path: Path) -> None:
    environ = configured(tmp_path)
    del environ["HOOK"], environ["KEY"]
    assert json.loads(cli(environ, "report").stdout) == []
    assert cli({}, "report", "--lake", f"file://{tmp_path}/lake").exit_code == 0


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    result = cli(configured(tmp_path), "report", "-o", str(tmp_path / "no" / "x.json"))
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_who_floods_the_admin_listener_takes_no_files_from_the_webhooks(tmp_path: Path) -> None:
    most = 1 + PROBES  # one reads changes
    asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    environ = configured(tmp_path, GROUNDWIRE_CHANGES__MAX_READERS="1")
    with process(environ, "receive") as running, ExitStack() as held:
        admin, hooks = running.port("admin"), running.port("hooks")
        sockets = []
        for _ in range(most + 20):
            one = held.enter_context(socket.create_connection(("127.0.0.1", admin), timeout=10))
            one.sendall(asked)
            assert one.recv(1000).startswith(b"HTTP/1.1 200")
            one.setblocking(False)
            sockets.append(one)
        deadline = time.monotonic() + 20
        while (still := sum(map(_is_open, sockets))) > most:
            assert time.monotonic() < deadline
        assert still == most
        assert running.ask(hooks, f"/hooks/rb?token={TOKEN}", b'{"payload": []}')[0] == 202


def _is_open(one: socket.socket) -> bool:
    try:
        return bool(one.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
