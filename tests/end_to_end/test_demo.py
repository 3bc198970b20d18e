"""The demo tells the same story on the embedded default and on RabbitMQ with S3."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from consumer.demo.story import play
from tests.end_to_end.house import free_port
from tests.servers_rabbitmq import RabbitServer
from tests.servers_s3 import S3Server, use_credentials

TOLD = [
    r"pointer +CT-0001 +#1 moved +stage Label, revision none, not ground truth",
    r"pointer +CT-0001 +#2 exported +stage Review_1, revision \w{12}, not ground truth",
    r"pointer +CT-0001 +#3 moved +stage Review_2",
    r"pointer +CT-0001 +#4 moved +stage END, revision \w{12}, ground truth",
    r"pointer +CT-0001 +#5 retracted +stage Label, revision \w{12}, left the ground truth",
    r"pointer +CT-0001 +#6 exported +stage Review_1, revision \w{12}, not ground truth",
    r"pointer +CT-0001 +#\d moved +stage END, revision \w{12}, ground truth",
    r"pointer +CT-0100 +#\d moved +stage Done, revision \w{12}, ground truth",
    r"log +\d+ decided +policy organs: 2 tasks, enough-changes",
    r"log +\d+ snapshot +organs/\S+: \d tasks",
    r"log +\d+ triggered +policy organs, decision \d",
    r"pointer +CT-0002 +#2 deleted +stage -, revision none, not ground truth",
    r"webhook +redbrick +a wrong token +-> 401",
    r"webhook +labelbox +a forged signature +-> 401",
    r"Everything fits, and the key you gave signed it\.",
]


def assert_told(text: str) -> None:
    place = 0
    for line in TOLD:
        found = re.search(line, text[place:])
        assert found, f"not told, or not in order: {line}\n{text}"
        place += found.end()


async def told(directory: Path, **places: str) -> str:
    out = io.StringIO()
    sound = await play(directory, console=Console(file=out, width=200), **places)  # type: ignore[arg-type]
    assert sound, out.getvalue()
    return out.getvalue()


async def test_the_story_on_the_embedded_default_twice_into_the_same_lake(tmp_path: Path) -> None:
    for _ in range(2):
        text = await told(tmp_path)
        assert_told(text)
        duplicates = text[text.index("comes twice more") : text.index("sends it back")]
        assert "pointer" not in duplicates
        assert "0 downloaded" in duplicates
        assert "no new entry" in duplicates


async def test_the_story_on_rabbitmq_and_s3(
    tmp_path: Path,
    rabbitmq_server: RabbitServer,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_credentials(monkeypatch)
    monkeypatch.setenv("GROUNDWIRE_LAKE_ENDPOINT", s3_server.endpoint)
    monkeypatch.setenv("GROUNDWIRE_QUEUE_PREFIX", f"demo-{free_port()}")
    lake = f"s3://{s3_server.bucket}/{s3_server.new_prefix()}"
    assert_told(await told(tmp_path, queue=rabbitmq_server.url, lake=lake))
