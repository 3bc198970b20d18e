"""The composition root: where a source's images may be read, as it is configured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from consumer.app_adapters import make_platforms
from consumer.errors import GroundwireError, Refused
from consumer.model import Image, Series, TaskSnapshot
from consumer.settings import ConfigurationError, load
from tests.servers_s3 import S3Server, use_credentials

TASK = TaskSnapshot(
    source="lb", project="p", task="crow7", name="n", stage=None, ground_truth=False
)


async def saved(
    folder: Path, reference: str, source: str, *, endpoint: str = "", top: str = ""
) -> bytes:
    """The one image of a task, as a source so configured saves it."""
    file = folder / "groundwire.toml"
    lake = f'lake = "s3://lake/l"\nlake_endpoint = "{endpoint}"' if endpoint else ""
    file.write_text(
        f"""
        {lake}
        {top}
        [sources.lb]
        platform = "labelbox"
        secrets = ["env:HOOK"]
        api_key = "env:KEY"
        {source}
        """
    )
    closing: list[Any] = []
    environ = {"HOOK": "s", "KEY": "k", "LOG_KEY": "x"}
    platforms = make_platforms(load(file, environ), closing)
    try:
        series = Series(name=None, images=(Image(reference=reference, name="x"),))
        (image,) = await platforms["lb"].save_images(TASK, series, folder)
        return _bytes_of(image.path)
    finally:
        for close in closing:
            await close()


def _bytes_of(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix with one image, as a URL."""
    use_credentials(monkeypatch)
    prefix = s3_server.new_prefix()
    client = s3_server.client()
    client.put_object(Bucket=s3_server.bucket, Key=f"{prefix}/crow7/a.dcm", Body=b"image")
    return f"s3://{s3_server.bucket}/{prefix}"


async def test_images_in_a_bucket_are_read_below_the_configured_prefixes(
    s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    at, image = s3_server.endpoint, f"{bucket}/crow7/a.dcm"
    allowed = f'image_prefixes = ["{bucket}"]'
    assert await saved(tmp_path, image, allowed, endpoint=at) == b"image"
    for source in ("", f'image_prefixes = ["{bucket}/other"]'):
        with pytest.raises(Refused) as caught:
            await saved(tmp_path, image, source, endpoint=at)
        assert caught.value.reason == "images-unreachable"


async def test_a_configured_template_says_where_images_lie_and_allows_it(
    s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    source = f'images = "{bucket}/{{task}}/"'
    at = s3_server.endpoint
    assert await saved(tmp_path, "gs://elsewhere", source, endpoint=at) == b"image"


async def test_a_series_is_as_large_as_configured_at_most(
    s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    source = f'image_prefixes = ["{bucket}"]\n[work]\nmax_image_bytes = 4'
    with pytest.raises(GroundwireError) as caught:
        await saved(tmp_path, f"{bucket}/crow7/a.dcm", source, endpoint=s3_server.endpoint)
    assert caught.value.reason == "images-too-large"


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ('images = "s3://b/{label}/"', "sources.lb.images"),
        ('images = "gs://b/{task}/"', "sources.lb.images"),
        ('image_prefixes = ["bucket/prefix"]', "sources.lb.image_prefixes"),
    ],
)
async def test_what_is_configured_wrongly_is_named_at_start(
    tmp_path: Path, source: str, named: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await saved(tmp_path, "x", source)
    assert named in str(caught.value)
