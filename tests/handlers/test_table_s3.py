"""The table in a bucket of a real server: boto3's credentials, and answers that get lost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars
import pytest

from consumer.app_follow import table_place
from consumer.errors import Conflict, GroundwireError, Transient
from consumer.ports import Cursor
from consumer.settings import ConfigurationError, load_lake
from consumer.stores.s3 import S3Store
from consumer.stores.s3_delta import DeltaOptions
from handlers.table import Table, TablePlace, Tuning
from handlers.table_schema import TABLE
from tests.handlers.table_house import Rows, TableHouse, WithTable, in_order, indices, table_house
from tests.proxy_http import HttpProxy, Verdict
from tests.servers_s3 import (
    ACCESS_KEY,
    READER_KEY,
    READER_SECRET,
    SECRET_KEY,
    S3Server,
    use_credentials,
)

AT_ONCE = Tuning(rows=1000, commit_every_s=0.0)
EFFECT = [Verdict.LOSE_ANSWER, Verdict.FAIL_AFTER, Verdict.BUSY_AFTER]
NO_EFFECT = [Verdict.LOSE_REQUEST, Verdict.FAIL_BEFORE, Verdict.RACE]


@dataclass
class Bucket:
    """A place of its own in the server's bucket, reached directly or by way of a proxy."""

    server: S3Server
    house: TableHouse

    def __post_init__(self) -> None:
        self.opened: list[S3Store] = []
        self.prefix = self.server.new_prefix()
        self.uri = f"s3://{self.server.bucket}/{self.prefix}/{TABLE}"

    def table(self, endpoint: str | None = None, tuning: Tuning = AT_ONCE) -> Table:
        """Delta's own requests go by way of ``endpoint``."""
        options = DeltaOptions(self.server.bucket, endpoint=endpoint or self.server.endpoint)
        files = S3Store(self.server.bucket, f"{self.prefix}/{TABLE}", endpoint=self.server.endpoint)
        self.opened.append(files)
        ports = self.house.table_ports(Path(), WithTable(self.house.store, files))
        return Table(ports, lambda: TablePlace(self.uri, options()), tuning)

    def rows(self) -> Rows:
        told = DeltaOptions(self.server.bucket, endpoint=self.server.endpoint)()
        options = {name: told[name] for name in told if name.startswith("aws_")}
        return in_order(polars.scan_delta(self.uri, storage_options=options).collect().to_dicts())


@pytest.fixture
async def bucket(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bucket]:
    use_credentials(monkeypatch)
    async with table_house(tmp_path / "plain") as house:
        made = Bucket(s3_server, house)
        yield made
        for store in made.opened:
            store.close()


async def test_a_table_in_a_bucket_has_the_rows_of_one_in_a_folder(bucket: Bucket) -> None:
    tuning = Tuning(rows=2, commit_every_s=0.0, upkeep_every=3, many=2)
    await bucket.house.moves(9)
    await bucket.house.catch_up(bucket.table(tuning=tuning))
    assert bucket.rows() == await bucket.house.up_to_date()
    assert (await bucket.table().start(Cursor())).next == 9


@pytest.mark.parametrize("verdict", [*EFFECT, *NO_EFFECT])
@pytest.mark.parametrize("put", [*(pytest.param(n, marks=pytest.mark.chaos) for n in (0, 1)), 2])
async def test_rows_are_in_once_whichever_answer_was_lost(
    bucket: Bucket, verdict: Verdict, put: int
) -> None:
    """The puts are the table's first version, a file, and the commit that names it."""
    await bucket.house.moves(3)
    async with HttpProxy(bucket.server.port) as proxy:
        proxy.plan("PUT", *[Verdict.PASS] * put, verdict)
        for _ in range(3):
            try:
                await bucket.house.catch_up(bucket.table(proxy.endpoint))
                break
            except (Transient, Conflict):
                continue
        assert verdict in [one for _, one in proxy.requests]
    await bucket.house.moves(1)
    await bucket.house.catch_up(bucket.table())
    assert indices(bucket.rows()) == [0, 1, 2, 3]


async def test_two_followers_that_race_in_a_bucket_never_double_a_row(bucket: Bucket) -> None:
    await bucket.house.moves(12)

    async def follow(rows: int) -> None:
        while True:
            try:
                tuning = Tuning(rows=rows, commit_every_s=0.0, upkeep_every=3, many=2)
                await bucket.house.catch_up(bucket.table(tuning=tuning))
                return
            except (Conflict, Transient):
                continue

    await asyncio.gather(follow(2), follow(3))
    assert indices(bucket.rows()) == list(range(12))


async def test_a_table_removed_from_a_bucket_is_built_anew(bucket: Bucket) -> None:
    await bucket.house.moves(2)
    await bucket.house.catch_up(bucket.table())
    client = bucket.server.client()
    prefix = bucket.uri.split("/", 3)[3]
    for one in client.list_objects_v2(Bucket=bucket.server.bucket, Prefix=prefix)["Contents"]:
        client.delete_object(Bucket=bucket.server.bucket, Key=one["Key"])
    assert (await bucket.table().start(Cursor(2))).next == 0
    await bucket.house.catch_up(bucket.table())
    assert indices(bucket.rows()) == [0, 1]


# Credentials


async def failure(bucket: Bucket, endpoint: str | None = None) -> GroundwireError:
    """What the table says, with nothing in it that nobody may see."""
    await bucket.house.moves(1)
    with pytest.raises(GroundwireError) as caught:
        await bucket.house.catch_up(bucket.table(endpoint))
    said = caught.value.message
    for secret in (ACCESS_KEY, SECRET_KEY, READER_KEY, READER_SECRET, "http", bucket.uri, "wrong"):
        assert secret not in said
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize(
    ("key", "secret"), [(ACCESS_KEY, "wrong"), ("wrong", SECRET_KEY), (READER_KEY, READER_SECRET)]
)
async def test_wrong_credentials_are_said_without_them(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, key: str, secret: str
) -> None:
    use_credentials(monkeypatch, key, secret)
    said = await failure(bucket)
    assert (type(said), said.reason) == (Transient, "table-denied")


async def test_no_credentials_at_all_are_said(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_credentials(monkeypatch, None)
    assert (await failure(bucket)).reason == "store-credentials"


async def test_a_server_that_is_down_is_said(bucket: Bucket) -> None:
    said = await failure(bucket, "http://127.0.0.1:9")
    assert (type(said), said.reason) == (Transient, "table-store")


async def test_a_profile_gives_credentials_as_boto3_finds_them(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_credentials(monkeypatch, None)
    file = tmp_path / "credentials"
    file.write_text(
        f"[lake]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "lake")
    await bucket.house.moves(1)
    await bucket.house.catch_up(bucket.table())
    assert indices(bucket.rows()) == [0]


async def test_credentials_that_expire_are_had_anew(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a program that the profile names; each of its answers is good for a minute, which is less
    than boto3 is content with."""
    use_credentials(monkeypatch, None)
    program = tmp_path / "credentials.py"
    program.write_text(
        "import json, pathlib\n"
        f"asked = pathlib.Path({str(tmp_path / 'asked')!r})\n"
        "count = len(asked.read_text()) if asked.exists() else 0\n"
        "asked.write_text('x' * (count + 1))\n"
        f"until = {(datetime.now(UTC) + timedelta(minutes=1)).isoformat()!r}\n"
        f"print(json.dumps({{'Version': 1, 'AccessKeyId': {ACCESS_KEY!r},"
        f" 'SecretAccessKey': {SECRET_KEY!r}, 'SessionToken': f'token-{{count}}',"
        " 'Expiration': until}))\n"
    )
    config = tmp_path / "config"
    config.write_text(f"[profile lake]\ncredential_process = {sys.executable} {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "lake")
    options = DeltaOptions(bucket.server.bucket, endpoint=bucket.server.endpoint)
    tokens = [options()["aws_session_token"] for _ in range(3)]
    assert len(set(tokens)) == 3


# Places


def options_with(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, str]:
    use_credentials(monkeypatch)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return DeltaOptions("lake")()


def test_at_amazon_the_region_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    options = options_with(monkeypatch, AWS_DEFAULT_REGION="eu-central-1")
    assert options["aws_region"] == "eu-central-1"
    assert "aws_endpoint_url" not in options
    assert options_with(monkeypatch)["aws_region"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL_S3", "https://minio.example.org:9000"),
        ("AWS_ENDPOINT_URL", "https://bucket.vpce-1.s3.eu-central-1.vpce.amazonaws.com"),
    ],
)
def test_another_server_is_found_as_boto3_finds_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    options = options_with(monkeypatch, AWS_DEFAULT_REGION="eu-central-1", **{name: value})
    assert options["aws_endpoint_url"] == value
    assert options["aws_virtual_hosted_style_request"] == "false"
    assert options["aws_allow_http"] == "false"


def test_a_place_shows_no_credentials() -> None:
    shown = repr(TablePlace("s3://lake/tables/revisions", {"aws_secret_access_key": "hush"}))
    assert "hush" not in shown


@pytest.mark.parametrize(
    ("lake", "uri"),
    [
        ("s3://lake/some/prefix", "s3://lake/some/prefix/tables/revisions"),
        ("s3://lake", "s3://lake/tables/revisions"),
        ("file:///srv/a%20lake", "/srv/a lake/tables/revisions"),
    ],
)
def test_the_table_lies_in_the_configured_lake(
    monkeypatch: pytest.MonkeyPatch, lake: str, uri: str
) -> None:
    use_credentials(monkeypatch)
    environment = {"GROUNDWIRE_LAKE": lake, "GROUNDWIRE_LAKE_ENDPOINT": "http://minio:9000"}
    if lake.startswith("file"):
        del environment["GROUNDWIRE_LAKE_ENDPOINT"]
    place = table_place(load_lake(None, None, environment))()
    assert place.uri == uri
    assert place.options.get("aws_endpoint_url") == environment.get("GROUNDWIRE_LAKE_ENDPOINT")


async def test_a_lake_in_a_folder_with_a_strange_name_has_its_table(tmp_path: Path) -> None:
    async with table_house(tmp_path / "a lake 100% #1 é?" / "tables/revisions") as house:
        await house.moves(2)
        assert indices(await house.up_to_date()) == [0, 1]


@pytest.mark.parametrize("lake", ["file:///srv/a%2520lake", "s3://lake/a%20prefix"])
def test_a_lake_where_no_delta_table_can_lie_is_refused(lake: str) -> None:
    """delta-rs would take the name for an escaped one, and write elsewhere than it reads."""
    with pytest.raises(ConfigurationError) as caught:
        table_place(load_lake(None, None, {"GROUNDWIRE_LAKE": lake}))
    assert "[follow] table = false" in str(caught.value)
