"""The stream of a real process: the README's script keeps a folder current, a reader outlives
restarts, and the stop does not wait for readers."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from consumer.changes import TaskChange
from consumer.client import changes
from consumer.demo.redbrick import Drawing, Instance, SeriesSpec
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, free_port, house, until

README = Path(__file__).parents[2] / "README.md"
HEADING = "## Follow the ground truth"
URL = "http://127.0.0.1:9090"


def the_readmes_script() -> str:
    section = README.read_text().partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
    (script,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert script.count(URL) == 1
    return str(script)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[House, str]]:
    """A house with ``groundwire run``, and the URL of its admin listener."""
    listen = f"127.0.0.1:{free_port()}"
    environment = {"GROUNDWIRE_ADMIN__LISTEN": listen}
    store = DirectoryStore(folder / "lake")
    async with house(folder, store, environment=environment) as place:
        place.start("run", "run")
        await place.listening()
        yield place, f"http://{listen}"


def a_study(place: House, name: str) -> str:
    task = place.cast.redbrick.create_task(name, [SeriesSpec(name="ct", dimensions=(6, 5, 4))])
    place.cast.redbrick.label(task, [Drawing(0, (Instance(1),))])
    return task


async def approved(place: House, *tasks: str) -> None:
    for task in tasks:
        for _ in range(2):  # there are two reviews
            place.cast.redbrick.approve(task)
    await place.post_all(place.webhooks())


async def sent_back(place: House, task: str) -> None:
    place.cast.redbrick.move(task, "Label")
    await place.post_all(place.webhooks())


class Script:
    """The README's script, run as its reader would, in a folder with the configuration."""

    def __init__(self, place: House, url: str) -> None:
        self._place = place
        self._project = place.cast.redbrick.project_id
        self._file = place.directory / "follow.py"
        self._file.write_text(the_readmes_script().replace(URL, url))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with (self._place.directory / "follow.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(self._file), self._project],
                env={**self._place.environment, "PATH": path},
                cwd=self._place.directory,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._place.processes["script"] = self._process

    def kill(self) -> None:
        self._place.kill("script")

    async def shows(self, *names: str) -> None:
        """Until the folder holds the masks of these tasks and of no others."""
        masks = self._place.directory / "training" / self._project / "segmentations"

        async def told() -> str | None:
            found = sorted(str(one.relative_to(masks)) for one in masks.rglob("*.nii.gz"))
            if found == sorted(f"{name}/ct.nii.gz" for name in names):
                return None
            return f"the folder holds {found}; {self.said()}"

        await until(told, within_s=60)

    def pulls(self) -> int:
        return self.said().count("fetched")

    def said(self) -> str:
        return (self._place.directory / "follow.log").read_text()


@pytest.mark.timeout(240)
async def test_the_readmes_script_keeps_a_folder_equal_to_the_ground_truth(tmp_path: Path) -> None:
    async with running(tmp_path) as (place, url):
        script = Script(place, url)
        script.start()
        first, second, third = (a_study(place, f"study{n}") for n in range(3))
        await approved(place, first)
        await script.shows("study0")
        await sent_back(place, first)
        await script.shows()
        # Both sides restart, and what happens meanwhile is not missed.
        script.kill()
        await approved(place, second)
        assert await place.stop("run") == 0
        place.start("run", "run")
        script.start()
        await script.shows("study1")
        # The reader goes on when the server alone restarts.
        assert await place.stop("run") == 0
        place.start("run", "run")
        await place.listening()
        await approved(place, third)
        await script.shows("study1", "study2")


@pytest.mark.timeout(240)
async def test_a_burst_of_changes_is_pulled_by_few_pulls(tmp_path: Path) -> None:
    async with running(tmp_path) as (place, url):
        script = Script(place, url)
        names = [f"study{n}" for n in range(30)]
        await approved(place, *(a_study(place, name) for name in names))
        script.start()
        await script.shows(*names)
        assert script.pulls() < 15


async def test_a_reader_is_told_each_change_once_though_the_server_is_killed(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (place, url):
        came: list[TaskChange] = []
        reading = asyncio.create_task(collect(url, came))
        task = a_study(place, "study")
        for before in (0, 2, 4):
            await approved(place, task)
            await until(partial(counted, came, before + 1))
            place.kill("run")
            place.start("run", "run")
            await place.listening()
            await sent_back(place, task)
            await until(partial(counted, came, before + 2))
            place.cast.redbrick.label(task, [Drawing(0, (Instance(1),))])
        reading.cancel()
        log = await place.log()
    assert [one.ground_truth for one in came] == ["added", "removed"] * 3
    assert [one.index for one in came] == sorted({one.index for one in came})
    assert all(log[one.index]["task"] == task == one.task for one in came)


async def collect(url: str, came: list[TaskChange]) -> None:
    async with aclosing(changes(url, base_s=0.05)) as stream:
        async for change in stream:
            came.append(change)


async def counted(came: list[TaskChange], count: int) -> str | None:
    return None if len(came) >= count else f"{len(came)} changes came, not {count}"


async def test_the_stop_does_not_wait_for_open_streams(tmp_path: Path) -> None:
    async with running(tmp_path) as (place, url), aiohttp.ClientSession() as http:
        streams = [await http.get(f"{url}/changes") for _ in range(5)]
        assert {one.status for one in streams} == {200}
        began = time.monotonic()
        assert await place.stop("run") == 0
        assert time.monotonic() - began < 10
        for one in streams:
            one.close()


async def test_a_process_that_does_not_write_the_log_tells_of_it_too(tmp_path: Path) -> None:
    async with running(tmp_path) as (place, _):
        listen = f"127.0.0.1:{free_port()}"
        place.environment = {**place.environment, "GROUNDWIRE_ADMIN__LISTEN": listen}
        place.start("export", "work", "export")
        came: list[TaskChange] = []
        reading = asyncio.create_task(collect(f"http://{listen}", came))
        await approved(place, a_study(place, "study"))
        await until(partial(counted, came, 1))
        reading.cancel()
    assert came[0].ground_truth == "added"


async def test_changes_prints_what_a_real_process_logged(tmp_path: Path) -> None:
    async with running(tmp_path) as (place, url):
        came: list[TaskChange] = []
        reading = asyncio.create_task(collect(url, came))
        await approved(place, a_study(place, "study"))
        await until(partial(counted, came, 1))
        reading.cancel()
        printed = await place.run("changes", "--ground-truth")
    assert printed.returncode == 0, printed.stderr
    (line,) = printed.stdout.splitlines()
    assert f'"id":"{came[0].id}"' in line
