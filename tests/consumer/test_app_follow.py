"""Which followers a process runs, and what `groundwire check` tries of what they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.app_follow import checks, chosen
from consumer.check import Checked
from consumer.settings import ConfigurationError, Settings, load
from tests.end_to_end.house import free_port
from tests.servers_rabbitmq import RabbitServer

POLICY = """
[retrain.nightly]
min_changes = 2
[retrain.nightly.target]
type = "http"
url = "http://127.0.0.1:9/x"
"""


def settings(folder: Path, text: str) -> Settings:
    file = folder / "groundwire.toml"
    file.write_text(text)
    return load(file, {})


async def checked(found: Settings) -> list[Checked]:
    return [one async for one in checks(found)]


def test_mirror_and_table_are_on_unless_they_are_switched_off(tmp_path: Path) -> None:
    assert chosen(settings(tmp_path, ""), None) == ("mirror", "table")
    off = settings(tmp_path, "[follow]\nmirror = false\ntable = false\n")
    assert chosen(off, None) == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mirrors", "there is no follower mirrors"),
        ("relay", r"relay is switched off: write \[follow\] relay = true"),
        ("retrain", r"retrain is switched off: write \[retrain.NAME\]"),
    ],
)
def test_a_follower_that_is_not_on_cannot_be_run_alone(
    tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        chosen(settings(tmp_path, ""), name)


async def test_a_policy_whose_target_could_never_be_told_is_found(tmp_path: Path) -> None:
    assert [one.ok for one in await checked(settings(tmp_path, POLICY))] == [True]
    (bad,) = await checked(settings(tmp_path, POLICY + 'body = "{"\n'))
    assert (bad.what, bad.ok) == ("retrain.nightly", False)
    assert bad.said.startswith("retrain.nightly.target")


async def test_a_command_that_is_not_there_is_found(tmp_path: Path) -> None:
    text = POLICY.partition("type")[0] + 'type = "command"\ncommand = ["{}", "--gpu"]\n'
    assert [one.ok for one in await checked(settings(tmp_path, text.format("sh")))] == [True]
    (bad,) = await checked(settings(tmp_path, text.format("/opt/nobody/made/this")))
    assert (bad.what, bad.ok) == ("retrain.nightly", False)
    assert "/opt/nobody/made/this" in bad.said


async def test_the_relay_s_exchange_is_tried(tmp_path: Path, rabbitmq_server: RabbitServer) -> None:
    text = "[follow]\nrelay = true\n[relay]\n"
    (good,) = await checked(settings(tmp_path, f'{text}url = "{rabbitmq_server.url}"\n'))
    assert (good.what, good.ok) == ("relay", True)
    nobody = f'url = "amqp://guest@127.0.0.1:{free_port()}/"\n'
    (bad,) = await checked(settings(tmp_path, text + nobody))
    assert not bad.ok
    missing = f'url = "{rabbitmq_server.url}"\nexchange = "nobody-made-it"\ndeclare = false\n'
    (absent,) = await checked(settings(tmp_path, text + missing))
    assert "exchange" in absent.said
