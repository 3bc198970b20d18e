"""What must stay where it is - secrets, tokens, signed URLs, e-mails, patients' names - is in no
log line, error, metric, answer, key or entry of the log, whatever outsiders send; and nothing of
theirs does something to who reads it. One real process, told by seeds.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumer.admin import Admin
from consumer.demo.redbrick import Drawing, Fault, Instance, Kind, SeriesSpec
from consumer.stores.directory import DirectoryStore
from consumer.telemetry import Metrics
from tests.end_to_end.house import House, free_port, house, until
from tests.fakes_queue import FakeQueue
from tests.seeds import seeds

CANARY = "KANARI"  # in every name and text that an outsider chooses
MAIL = "kanari.doe@clinic.example"
WEIRD = ["\x1b[2J", "\r\nforged", "\x00", "\x9b31m", "\u202e", "\u2028", "[red]", "\x07", "\ud83d"]
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\ud800-\udfff]")
QUERY = re.compile(r"[?&](?:token|sig|signature|X-Amz-[A-Za-z]+)=", re.IGNORECASE)


def said(rng: random.Random) -> str:
    """A text that names a patient, an address, a signed URL and a person, and tries more."""
    parts = [CANARY, f"Doe^{CANARY}", MAIL, f"https://h.example/a?sig={CANARY}", *WEIRD]
    return " ".join(rng.choices(parts, k=rng.randrange(2, 6)))


def values(value: Any) -> Iterator[str]:
    """Every text of a value, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from (key, *values(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from values(inner)


def spoilt(rng: random.Random, value: Any) -> Any:
    """A webhook's body whose texts, but for those that say what it is, are an outsider's."""
    if isinstance(value, dict):
        return {key: spoilt(rng, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [spoilt(rng, inner) for inner in value]
    return said(rng) if rng.random() < 0.5 else value


async def raw(place: House, request: bytes) -> bytes:
    """What is answered to bytes that may be no request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.hooks_port)
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(10):
            return await reader.read(1 << 16)
    except (OSError, TimeoutError):
        return b""
    finally:
        writer.close()


async def attacked(place: House, rng: random.Random) -> list[str]:
    """Everything that an outsider can say is said; all answers."""
    cast, answers = place.cast, []
    for name in ("GraphQL", "taskSDK", "file GET"):
        cast.redbrick.faults.add(name, Fault(Kind.GRAPHQL_ERROR, message=said(rng)))
    fine = f"{CANARY} Doe {rng.randrange(100)}"
    tasks = [cast.redbrick.create_task(name, [SeriesSpec(name=fine)]) for name in (fine, said(rng))]
    cast.redbrick.label(tasks[0])
    cast.redbrick.comment(tasks[0], said(rng))
    cast.redbrick.label(tasks[1], [Drawing(0, (Instance(1),), b"no NIfTI " + CANARY.encode())])
    posts = place.webhooks()
    for post in posts:
        assert await place.post(post) == 202
    for _ in range(6):
        body = json.dumps(spoilt(rng, json.loads(rng.choice(posts).body))).encode()
        answers.append(await answer(place, "redbrick", cast.token, body))
        answers.append(await answer(place, "redbrick", f"{CANARY}{MAIL}", body))
        answers.append(await answer(place, "labelbox", "", body, "sha1=" + CANARY))
        answers.append(await answer(place, f"{CANARY}-{cast.token}", cast.token, body))
    token = cast.token.encode()
    for request in (
        b"GET /hooks/redbrick?token=" + token + b" HTTP/9.9\r\n\r\n",
        b"POST /hooks/redbrick?token=" + token + b"\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /hooks/" + MAIL.encode() + b"?" + token + b"\r\n\r\n",
        token + MAIL.encode() + b"\x00\r\n\r\n",
        b"POST / HTTP/1.1\r\nX-" + token + b": " + MAIL.encode() + b"\x01\r\n\r\n",
        b"POST /hooks/redbrick HTTP/1.1\r\nContent-Length: " + token + b"\r\n\r\n",
    ):
        answers.append((await raw(place, request)).decode("latin-1"))
    return answers


async def answer(place: House, source: str, token: str, body: bytes, signature: str = "") -> str:
    headers = {"User-Agent": f"{CANARY} {MAIL}", "X-Forwarded-For": f"{CANARY}, {MAIL}"}
    if signature:
        headers["X-Hub-Signature"] = signature
    url = f"http://127.0.0.1:{place.hooks_port}/hooks/{source}"
    query = {"token": token} if token else {}
    async with place.session.post(url, data=body, headers=headers, params=query) as got:
        return f"{dict(got.headers)} {await got.text()}"


def assert_nothing_of_theirs(text: str, place: House, *, what: str) -> None:
    cast = place.cast
    secrets = [cast.token, cast.redbrick.api_key, cast.labelbox.api_key,
               cast.labelbox.webhook_secret, CANARY, CANARY.lower(), MAIL]  # fmt: skip
    secrets += [user.email for user in cast.redbrick.users.values()]
    for secret in secrets:
        assert secret not in text, f"{secret} is in {what}"
    assert not QUERY.search(text), what
    assert not UNSEEN.search(text), what


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", seeds(0.05))
async def test_nothing_secret_and_no_name_is_anywhere_it_need_not_be(
    seed: int, tmp_path: Path
) -> None:
    rng, admin = random.Random(seed), free_port()
    environment = {
        "GROUNDWIRE_ADMIN__LISTEN": f"127.0.0.1:{admin}",
        "GROUNDWIRE_PRIVACY__PATHS": "id",
        "GROUNDWIRE_RETRY__ATTEMPTS": "2",
    }
    store = DirectoryStore(tmp_path / "lake")
    async with house(tmp_path, store, environment=environment, seed=f"s{seed}") as place:
        place.cast.token = "hook-token-0123456789/+="  # a letter of it may be escaped in URLs
        (tmp_path / "secrets" / "redbrick-token").write_text(place.cast.token)
        place.start("run", "run")
        await place.listening()
        told = await attacked(place, rng)

        async def idle() -> str | None:
            text = await asked(place, admin, "/metrics")
            held = re.findall(
                r'^groundwire_queue_messages{.*"(?:audit|export)".*} (.*)$', text, re.M
            )
            return "messages are queued" if any(map(float, held)) else None

        await until(idle)
        told += [await asked(place, admin, path) for path in ("/metrics", "/readyz", "/healthz")]
        assert await place.stop("run") == 0
        for one in told:
            assert_nothing_of_theirs(one.replace("\r\n", "\n").replace("\t", " "), place, what=one)
        lines = [json.loads(line) for line in (tmp_path / "run.log").read_text().splitlines()]
        assert {line["event"] for line in lines} >= {"accepted", "refused", "lake moved"}
        for line in lines:
            for text in values(line):
                assert_nothing_of_theirs(text, place, what=str(line))
                assert "\n" not in text
        for key in [one.key async for one in store.list("")]:
            assert_nothing_of_theirs(key, place, what="a key")
        for entry in await place.log():
            for text in values(entry):
                assert_nothing_of_theirs(text, place, what=str(entry))
        for command in (["dead", "list"], ["report"], ["verify"], ["check"], ["gc"]):
            done = await place.run(*command)
            for text in (done.stdout, done.stderr):
                assert_nothing_of_theirs(text, place, what=f"{command}: {text}")
            assert "Traceback" not in done.stderr
        assert (await place.run("dead", "list")).stdout.count("\n") >= 1
    store.close()


async def asked(place: House, port: int, path: str) -> str:
    async with place.session.get(f"http://127.0.0.1:{port}{path}") as got:
        return await got.text()


def test_the_admin_listener_only_reads() -> None:
    """Whoever adds what changes something must first see to it that it needs a token."""
    admin = Admin(Metrics(), FakeQueue([]), [])
    routes = {(one.method, one.resource.canonical) for one in admin.application().router.routes()
              if one.resource is not None}  # fmt: skip
    assert {method for method, _ in routes} == {"GET", "HEAD"}
    assert {path for _, path in routes} == {"/healthz", "/readyz", "/metrics", "/changes"}
