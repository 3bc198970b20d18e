"""Frames and images that lie in a bucket, through RabbitMQ into a lake on S3."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from consumer.log.verify import verify
from consumer.stores.s3 import S3Store
from tests.end_to_end.house import House, house
from tests.end_to_end.volume_rows import (
    PHANTOM,
    TURNED,
    Task,
    by_view,
    composites,
    configure,
    expected,
    in_row,
    slices,
    tell,
    until_exported,
    views_toml,
)
from tests.servers_rabbitmq import RabbitServer
from tests.servers_s3 import ACCESS_KEY, SECRET_KEY, S3Server, use_credentials


def uploaded(server: S3Server) -> list[str]:
    """The phantom's slices in a folder of the bucket, by their URLs."""
    client, folder = server.client(), f"{server.new_prefix()}/ct"
    for name, data in slices().items():
        client.put_object(Bucket=server.bucket, Key=f"{folder}/{name}", Body=data)
    return [f"s3://{server.bucket}/{folder}/{name}" for name in slices()]


async def start(place: House) -> None:
    for name, command in (
        ("receive", ("receive",)),
        ("export", ("work", "export")),
        ("audit", ("work", "audit")),
    ):
        place.start(name, *command)
    await place.listening()


@pytest.mark.timeout(240)
async def test_images_in_a_bucket_place_the_frames_and_no_other_bucket_is_read(
    tmp_path: Path,
    rabbitmq_server: RabbitServer,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_credentials(monkeypatch)
    prefix, urls = s3_server.new_prefix(), uploaded(s3_server)
    folder = urls[0].rpartition("/")[0]
    store = S3Store(s3_server.bucket, prefix, endpoint=s3_server.endpoint)
    environment = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "GROUNDWIRE_LAKE_ENDPOINT": s3_server.endpoint,
    }
    async with house(
        tmp_path,
        store,
        queue=rabbitmq_server.url,
        lake=f"s3://{s3_server.bucket}/{prefix}",
        environment=environment,
    ) as place:
        simulator = place.cast.labelbox
        projects = {"allowed": simulator.project_id, "other": simulator.add_project("other").id}
        own = {name: views_toml(name, TURNED) for name in projects}
        own["allowed"] = f'image_prefixes = ["{folder}"]\n{own["allowed"]}'
        own["other"] = f'image_prefixes = ["{folder}-of-others"]\n{own["other"]}'
        configure(place, own, {name: (simulator, one) for name, one in projects.items()})
        await start(place)
        rows = {}
        for name, source, images, drawings in (
            ("prefix", "allowed", {}, by_view(TURNED)),
            ("list", "allowed", {"s.json": json.dumps(urls).encode()}, composites(TURNED)),
            ("others", "other", {}, composites(TURNED)),
        ):
            at = f"{folder}/"
            row = simulator.create_row(name, at, project=projects[source], images=images)
            simulator.label(row, in_row(drawings, name))
            rows[name] = (projects[source], row)
            await tell(place, source, simulator)
        await until_exported(place, rows)
        tasks = {name: await Task.read(store, *row) for name, row in rows.items()}
        for name in ("prefix", "list"):
            assert np.array_equal(tasks[name].voxels(), expected()), name
            assert tasks[name].image("images/A.nii.gz").shape == PHANTOM.shape
            assert dict(tasks[name].images()) == slices()
            assert tasks[name].manifest.refused == ()
        assert {one.reason for one in tasks["others"].manifest.refused} == {"images-unreachable"}
        assert list(tasks["others"].images()) == []
        for name in ("receive", "export", "audit"):
            assert await place.stop(name) == 0, name
        verified = await verify(store)
        assert (verified.findings, verified.unreferenced) == ((), ())
