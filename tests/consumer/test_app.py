"""The composition root: what is configured reaches the adapter that it is meant for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from consumer.app_adapters import make_platforms, make_queue
from consumer.demo.redbrick import SimulatedRedBrick
from consumer.errors import GroundwireError, Permanent
from consumer.model import Action, TaskKey, TaskSnapshot
from consumer.ports import Platform
from consumer.settings import Settings, load
from tests.servers_rabbitmq import RabbitServer


def configured(folder: Path, source: str = "", top: str = "", **environ: str) -> Settings:
    file = folder / "groundwire.toml"
    file.write_text(
        f"""
        {top}
        [sources.rb]
        platform = "redbrick"
        secrets = ["env:HOOK"]
        api_key = "env:KEY"
        {source}
        """
    )
    return load(file, {"HOOK": "token", "KEY": "k" * 43, **environ})


@asynccontextmanager
async def a_platform(
    folder: Path, simulator: SimulatedRedBrick, source: str = "", **environ: str
) -> AsyncIterator[Platform]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(simulator.serve())
        account = f'api_url = "{url}"\norganization = "{simulator.org_id}"\n{source}'
        closing: list[Any] = []
        found = configured(folder, account, **{"KEY": simulator.api_key, **environ})
        platforms = make_platforms(found, closing)
        for close in closing:
            stack.push_async_callback(close)
        yield platforms["rb"]


async def why_not_downloaded(
    folder: Path, source: str = "", environ: Mapping[str, str] | None = None
) -> str:
    """The reason with which the mask of a labelled task is refused."""
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    async with a_platform(folder, simulator, source, **(environ or {})) as platform:
        key = TaskKey(source="rb", project=simulator.project_id, task=task_id)
        snapshot = (await platform.fetch([key]))[key]
        assert isinstance(snapshot, TaskSnapshot)
        try:
            await platform.download(snapshot, snapshot.labels[0].series[0].masks[0])
        except GroundwireError as error:
            return error.reason
    return "it was downloaded"


async def test_masks_come_from_the_configured_hosts_only(tmp_path: Path) -> None:
    assert await why_not_downloaded(tmp_path) == "it was downloaded"
    only = 'download_hosts = ["masks.example"]'
    assert await why_not_downloaded(tmp_path, only) == "download-host"


async def test_a_mask_is_as_large_as_configured_at_most(tmp_path: Path) -> None:
    small = {"GROUNDWIRE_WORK__MAX_DOWNLOAD_BYTES": "10"}
    assert await why_not_downloaded(tmp_path, environ=small) == "download-too-large"


async def test_the_configured_stages_are_the_ground_truth(tmp_path: Path) -> None:
    simulator = SimulatedRedBrick()
    body = {
        "payload": [
            {
                "event": "TASK_ENTERED_STAGE",
                "data": {"projectId": "p", "taskId": "t", "stageName": "Accepted"},
            }
        ]
    }
    actions = []
    for source in ("", 'ground_truth_stages = ["Accepted"]'):
        async with a_platform(tmp_path, simulator, source) as platform:
            delivery = platform.verify({}, {"token": "token"}, json.dumps(body).encode())
            actions += [event.action for event in platform.parse(delivery)]
    assert actions == [Action.MOVE, Action.APPROVE]


async def test_only_the_configured_projects_are_heard(tmp_path: Path) -> None:
    simulator = SimulatedRedBrick()
    event = {"event": "TASK_CREATED", "data": {"projectId": "p", "taskId": "t"}}
    async with a_platform(tmp_path, simulator, 'projects = ["q"]') as platform:
        body = json.dumps({"payload": [event]}).encode()
        assert platform.parse(platform.verify({}, {"token": "token"}, body)) == []


async def why_not_open(folder: Path, top: str, **environ: str) -> str:
    """The reason with which the queues of this configuration do not open."""
    queue = make_queue(configured(folder, 'organization = "o"', top, **environ))
    try:
        await queue.open()
    except Permanent as error:
        return error.reason
    finally:
        await queue.close()
    return "it opened"


async def test_queues_that_are_not_ours_to_declare_are_only_checked(
    tmp_path: Path, rabbitmq_server: RabbitServer
) -> None:
    top = f'queue = "{rabbitmq_server.url}"\nqueue_prefix = "nobody-made-these"\ndeclare = false'
    assert await why_not_open(tmp_path, top) == "queue-missing"


async def test_the_brokers_password_is_given_apart_from_its_url(
    tmp_path: Path, rabbitmq_server: RabbitServer
) -> None:
    url = rabbitmq_server.url.replace("guest:guest@", "guest@")
    top = f'queue = "{url}"\nqueue_password = "env:PASSWORD"\ndeclare = false'
    refused = await why_not_open(tmp_path, top, PASSWORD="wrong")
    admitted = await why_not_open(tmp_path, top, PASSWORD="guest")
    assert (refused, admitted) == ("queue-denied", "queue-missing")
