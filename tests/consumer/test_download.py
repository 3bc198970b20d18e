"""The download client over real sockets: whoever annotates chooses the URLs that it is given."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from consumer.download import CHUNK, MAX_REDIRECTS, SLOWEST, Downloader, retry_after_s
from consumer.errors import GroundwireError, Permanent, Transient
from tests.loopback import LOOPBACK

BODY = bytes(range(256)) * 300
KEY = "Bearer secret-key"
SIGNED = "?X-Amz-Signature=5ec4e7&patient=Doe"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Peer:
    """A server that answers every path as ``answer`` says, and remembers who asked."""

    answer: Answer
    asked: list[web.Request] = field(default_factory=list)
    server: TestServer | None = None
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/file", host: str = "127.0.0.1") -> str:
        assert self.server is not None
        return f"http://{host}:{self.server.port}{path}"

    @property
    def keys(self) -> list[str | None]:
        return [request.headers.get("Authorization") for request in self.asked]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        return await self.answer(request)

    async def start(self) -> Peer:
        app = web.Application()
        app.router.add_get("/{rest:.*}", self._answer)
        self.server = TestServer(app)
        await self.server.start_server()
        return self


Serve = Callable[[Answer], Awaitable[Peer]]
Client = Callable[..., Downloader]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    peers: list[Peer] = []

    async def start(answer: Answer) -> Peer:
        peers.append(await Peer(answer).start())
        return peers[-1]

    yield start
    for peer in peers:
        peer.released.set()
        if peer.server is not None:
            await peer.server.close()


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    made: list[Downloader] = []

    def make(**limits: object) -> Downloader:
        made.append(Downloader(**{"networks": LOOPBACK, **limits}))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def whole(_: web.Request) -> web.StreamResponse:
    return web.Response(body=BODY)


def says(status: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, headers=named, text="<Error>secret body</Error>")

    return answer


async def failure(downloader: Downloader, url: str, **options: object) -> GroundwireError:
    with pytest.raises((Transient, Permanent)) as caught:
        await downloader.get(url, **options)  # type: ignore[arg-type]
    return caught.value


# what is fetched


async def test_the_whole_body_comes(serve: Serve, client: Client) -> None:
    assert await client().get((await serve(whole)).url()) == BODY


async def test_an_empty_body_is_a_body(serve: Serve, client: Client) -> None:
    async def nothing(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"")

    assert await client().get((await serve(nothing)).url()) == b""


async def test_a_body_of_undeclared_size_comes_whole(serve: Serve, client: Client) -> None:
    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(BODY[:1000])
        await response.write(BODY[1000:])
        return response

    assert await client().get((await serve(chunked)).url()) == BODY


async def test_bytes_stay_packed_whatever_the_encoding_says(serve: Serve, client: Client) -> None:
    packed = gzip.compress(BODY, mtime=0)

    async def encoded(_: web.Request) -> web.StreamResponse:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    peer = await serve(encoded)
    assert await client().get(peer.url()) == packed
    assert peer.asked[0].headers["Accept-Encoding"] == "identity"


async def test_a_presigned_query_is_sent_as_it_was_given(serve: Serve, client: Client) -> None:
    peer = await serve(whole)
    await client().get(peer.url("/a%2Fb%20c?sig=a%2Bb%2F%3D&x=%7E"))
    assert peer.asked[0].raw_path == "/a%2Fb%20c?sig=a%2Bb%2F%3D&x=%7E"


async def test_no_cookie_is_kept(serve: Serve, client: Client) -> None:
    peer = await serve(says(200, Set_Cookie="a=b"))
    downloader = client()
    await downloader.get(peer.url())
    await downloader.get(peer.url())
    assert "Cookie" not in peer.asked[1].headers


# who may be asked


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/file", "file:///etc/passwd", "gopher://host/", "/file", "", "host/file",
        "http://", "http:///file", "http://[", "http://[::1", "javascript:alert(1)", "data:,x",
    ],
)  # fmt: skip
async def test_only_http_and_https_are_fetched(client: Client, url: str) -> None:
    error = await failure(client(), url)
    assert isinstance(error, Permanent)
    assert error.reason == "download-scheme"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        f"http://{'a' * 70}.example/",
        "http://a..b/",
        "http://\ud800.example/",
        "http://host\x00name/",
        "http://host name/",
    ],
)
async def test_a_host_or_port_that_is_none_is_said_to_be_none(client: Client, url: str) -> None:
    error = await failure(client(), url)
    assert isinstance(error, Permanent)
    assert error.reason == "download-scheme"


async def test_only_the_named_hosts_are_asked(serve: Serve, client: Client) -> None:
    peer = await serve(whole)
    narrow = client(hosts=frozenset({"files.example"}))
    error = await failure(narrow, peer.url(f"/file{SIGNED}"))
    assert isinstance(error, Permanent)
    assert error.reason == "download-host"
    assert peer.asked == []


async def test_a_named_host_is_asked_in_any_case(serve: Serve, client: Client) -> None:
    peer = await serve(whole)
    url = peer.url(host="LocalHost")
    assert await client(hosts=frozenset({"LOCALHOST"})).get(url) == BODY


# redirects


async def test_a_redirect_is_followed_relative_to_where_it_stands(
    serve: Serve, client: Client
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/a/file":
            raise web.HTTPFound("../b/file")
        return web.Response(text=request.path)

    peer = await serve(answer)
    assert await client().get(peer.url("/a/file")) == b"/b/file"


async def test_a_redirect_to_a_host_that_is_not_named_is_refused(
    serve: Serve, client: Client
) -> None:
    other = await serve(whole)
    peer = await serve(says(302, Location=other.url(host="127.0.0.1")))
    narrow = client(hosts=frozenset({"localhost"}))
    error = await failure(narrow, peer.url(host="localhost"))
    assert error.reason == "download-host"
    assert other.asked == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/", "http://[", "http://h:x/"])
async def test_a_redirect_to_no_http_url_is_refused(
    serve: Serve, client: Client, target: str
) -> None:
    peer = await serve(says(301, Location=target))
    error = await failure(client(), peer.url())
    assert isinstance(error, Permanent)
    assert error.reason == "download-scheme"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_without_end_are_given_up(
    serve: Serve, client: Client, status: int
) -> None:
    peer = await serve(says(status, Location="/file"))
    error = await failure(client(), peer.url())
    assert isinstance(error, Permanent)
    assert error.reason == "download-redirects"
    assert len(peer.asked) == MAX_REDIRECTS + 1


async def test_a_redirect_that_leads_nowhere_is_not_followed(serve: Serve, client: Client) -> None:
    peer = await serve(says(302))
    error = await failure(client(), peer.url())
    assert isinstance(error, Permanent)
    assert error.reason == "download-redirects"
    assert len(peer.asked) == 1


# the key


async def test_the_key_is_sent_where_it_was_meant_to(serve: Serve, client: Client) -> None:
    peer = await serve(whole)
    await client().get(peer.url(), authorization=KEY)
    assert peer.keys == [KEY]


async def test_nobody_is_sent_a_key_that_was_not_given(serve: Serve, client: Client) -> None:
    peer = await serve(whole)
    await client().get(peer.url())
    assert peer.keys == [None]


async def test_the_key_stays_on_a_redirect_within_its_origin(serve: Serve, client: Client) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/file":
            raise web.HTTPFound("/there")
        return web.Response(body=BODY)

    peer = await serve(answer)
    await client().get(peer.url(), authorization=KEY)
    assert peer.keys == [KEY, KEY]


async def test_the_key_goes_to_no_other_origin(serve: Serve, client: Client) -> None:
    other = await serve(whole)  # another port is another origin
    peer = await serve(says(307, Location=other.url()))
    assert await client().get(peer.url(), authorization=KEY) == BODY
    assert other.keys == [None]


async def test_the_key_is_gone_for_good_once_it_was_dropped(serve: Serve, client: Client) -> None:
    """Else whoever is redirected to would choose what is asked with our key."""
    target = ""

    async def back(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(target)

    other = await serve(back)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/file":
            raise web.HTTPFound(other.url())
        return web.Response(body=BODY)

    peer = await serve(answer)
    target = peer.url("/admin")
    await client().get(peer.url(), authorization=KEY)
    assert peer.keys == [KEY, None]


async def test_a_url_that_holds_a_password_is_not_fetched(serve: Serve, client: Client) -> None:
    peer = await serve(whole)
    url = peer.url().replace("http://", "http://user:password@")
    error = await failure(client(), url, authorization=KEY)
    assert isinstance(error, Permanent)
    assert error.reason == "download-scheme"
    assert peer.asked == []


# how much


async def test_a_declared_size_over_the_limit_is_not_read(serve: Serve, client: Client) -> None:
    peer = await serve(whole)
    error = await failure(client(max_bytes=len(BODY) - 1), peer.url())
    assert isinstance(error, Permanent)
    assert error.reason == "download-too-large"
    assert str(len(BODY)) in error.message


async def test_a_body_at_the_limit_comes(serve: Serve, client: Client) -> None:
    assert await client(max_bytes=len(BODY)).get((await serve(whole)).url()) == BODY


async def test_an_undeclared_size_over_the_limit_is_not_read_to_its_end(
    serve: Serve, client: Client
) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while request.transport is not None:
            await response.write(b"x" * 65536)
        return response

    peer = await serve(endless)
    error = await failure(client(max_bytes=1_000_000), peer.url())
    assert isinstance(error, Permanent)
    assert error.reason == "download-too-large"


async def test_one_call_may_ask_for_less_and_never_for_more(serve: Serve, client: Client) -> None:
    peer = await serve(whole)
    downloader = client(max_bytes=len(BODY) - 1)
    assert (await failure(downloader, peer.url(), max_bytes=10)).message.endswith("is 10")
    assert (await failure(downloader, peer.url(), max_bytes=1 << 30)).reason == "download-too-large"


async def test_a_limit_of_nothing_admits_nothing(serve: Serve, client: Client) -> None:
    error = await failure(client(), (await serve(whole)).url(), max_bytes=0)
    assert error.reason == "download-too-large"


# how long, how whole


async def test_a_body_that_breaks_off_is_asked_for_again(serve: Serve, client: Client) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(BODY))})
        await response.prepare(request)
        await response.write(BODY[:100])
        assert request.transport is not None
        request.transport.close()
        return response

    error = await failure(client(), (await serve(broken)).url())
    assert isinstance(error, Transient)
    assert error.reason == "download-truncated"


async def test_chunks_that_break_off_are_no_body(serve: Serve, client: Client) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(BODY[:100])
        assert request.transport is not None
        request.transport.close()
        return response

    error = await failure(client(), (await serve(broken)).url())
    assert isinstance(error, Transient)
    assert error.reason == "download-truncated"


async def test_a_server_that_does_not_answer_is_not_waited_for(
    serve: Serve, client: Client
) -> None:
    peer: Peer | None = None

    async def silent(_: web.Request) -> web.StreamResponse:
        assert peer is not None
        await peer.released.wait()
        return web.Response()

    peer = await serve(silent)
    error = await failure(client(stall_s=0.05), peer.url())
    assert isinstance(error, Transient)
    assert error.reason == "download-timeout"


async def test_a_body_that_does_not_end_ends_with_the_whole_time(
    serve: Serve, client: Client
) -> None:
    peer: Peer | None = None

    async def begun(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(BODY))})
        await response.prepare(request)
        await response.write(BODY[:1])
        assert peer is not None
        await peer.released.wait()
        return response

    peer = await serve(begun)
    error = await failure(client(timeout_s=0.1, stall_s=60.0), peer.url())
    assert isinstance(error, Transient)
    assert error.reason == "download-timeout"


async def test_a_server_that_is_not_there_may_be_there_later(serve: Serve, client: Client) -> None:
    peer = await serve(whole)
    url = peer.url()
    assert peer.server is not None
    await peer.server.close()
    error = await failure(client(), url)
    assert isinstance(error, Transient)
    assert error.reason == "download-failed"


# what was answered


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (204, "download-failed"), (206, "download-failed"), (304, "download-failed"),
        (400, "download-refused"), (401, "download-refused"), (403, "download-refused"),
        (404, "download-missing"), (410, "download-refused"), (416, "download-failed"),
        (429, "download-rate-limited"), (500, "download-failed"), (503, "download-failed"),
    ],
)  # fmt: skip
async def test_no_other_answer_is_a_body(
    serve: Serve, client: Client, status: int, reason: str
) -> None:
    error = await failure(client(), (await serve(says(status))).url())
    assert isinstance(error, Transient)
    assert error.reason == reason
    assert str(status) in error.message


async def test_a_rate_limit_is_everybodys(serve: Serve, client: Client) -> None:
    error = await failure(client(), (await serve(says(429, Retry_After="17"))).url())
    assert isinstance(error, Transient)
    assert (error.shared, error.after_s) == (True, 17.0)


@pytest.mark.parametrize(
    ("given", "wait_s"),
    [
        ("17", 17.0), ("0", 0.0), ("999999", 3600.0), ("-1", None), ("1.5", None), ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("9" * 5000, 3600.0), ("\u0663", None),
    ],
)  # fmt: skip
async def test_retry_after_is_the_least_wait_up_to_an_hour(
    serve: Serve, client: Client, given: str, wait_s: float | None
) -> None:
    error = await failure(client(), (await serve(says(503, Retry_After=given))).url())
    assert isinstance(error, Transient)
    assert error.after_s == wait_s


# what is told


@pytest.mark.parametrize(
    "answer",
    [says(403), says(404), says(429), says(500), says(302, Location="ftp://u:p@h/x?sig=5ec4e7")],
)
async def test_no_error_tells_more_of_a_url_than_its_host(
    serve: Serve, client: Client, answer: Answer
) -> None:
    peer = await serve(answer)
    error = await failure(client(), peer.url(f"/patients/Doe{SIGNED}"), authorization=KEY)
    for told in (str(error), error.message, repr(error)):
        for secret in ("5ec4e7", "Doe", "secret", "patients"):
            assert secret not in told


async def test_a_chosen_host_is_told_in_short(client: Client) -> None:
    narrow = client(hosts=frozenset({"files.example"}))
    error = await failure(narrow, f"http://{'a' * 5000}/")
    assert len(error.message) < 300


# into files


async def saving(
    downloader: Downloader, url: str, path: Path, **options: object
) -> GroundwireError:
    with pytest.raises((Transient, Permanent)) as caught:
        await downloader.save(url, path, **options)  # type: ignore[arg-type]
    assert not _is_there(path)
    return caught.value


@pytest.mark.parametrize("size", [0, 1, CHUNK, (1 << 20) - 1, (1 << 20) + 1, 3 << 20])
async def test_a_body_is_saved_with_its_hash_and_size(
    serve: Serve, client: Client, tmp_path: Path, size: int
) -> None:
    body = hashlib.shake_128(b"image").digest(size)

    async def image(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    path = tmp_path / "0"
    given = await client().save((await serve(image)).url(), path)
    assert given == (hashlib.sha256(body).hexdigest(), size)
    assert path.read_bytes() == body


async def test_a_file_may_be_larger_than_what_is_held_in_memory(
    serve: Serve, client: Client, tmp_path: Path
) -> None:
    peer = await serve(whole)
    downloader = client(max_bytes=10, max_file_bytes=len(BODY))
    assert (await downloader.save(peer.url(), tmp_path / "0"))[1] == len(BODY)
    assert (await failure(downloader, peer.url())).reason == "download-too-large"


@pytest.mark.parametrize("declared", [True, False])
async def test_a_file_over_its_limit_is_not_kept(
    serve: Serve, client: Client, tmp_path: Path, *, declared: bool
) -> None:
    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(BODY)
        return response

    url = (await serve(whole if declared else chunked)).url()
    for downloader, limit in ((client(max_file_bytes=len(BODY) - 1), None), (client(), 10)):
        error = await saving(downloader, url, tmp_path / "0", max_bytes=limit)
        assert isinstance(error, Permanent)
        assert error.reason == "download-too-large"


async def test_a_body_that_breaks_off_leaves_no_file(
    serve: Serve, client: Client, tmp_path: Path
) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(9 << 20)})
        await response.prepare(request)
        await response.write(bytes(3 << 20))
        assert request.transport is not None
        request.transport.close()
        return response

    error = await saving(client(), (await serve(broken)).url(), tmp_path / "0")
    assert isinstance(error, Transient)
    assert error.reason == "download-truncated"


async def test_what_is_spent_can_end_a_file(serve: Serve, client: Client, tmp_path: Path) -> None:
    spent: list[int] = []

    def spend(count: int) -> None:
        spent.append(count)
        if sum(spent) == len(BODY):
            raise Permanent("images-too-large")

    peer = await serve(whole)
    error = await saving(client(), peer.url(), tmp_path / "0", spend=spend)
    assert error.reason == "images-too-large"


async def test_a_file_takes_the_time_it_needs(serve: Serve, client: Client, tmp_path: Path) -> None:
    """Longer than the whole time of a mask, as long as enough bytes come."""
    path, seconds = tmp_path / "0", [0.0]

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(9 * SLOWEST)})
        await response.prepare(request)
        await response.write(bytes(8 * SLOWEST))
        async with asyncio.timeout(10):
            while _size_of(path) < 8 * SLOWEST:
                await asyncio.sleep(0.001)
        seconds[0] += 17
        await response.write(bytes(SLOWEST))
        return response

    downloader = client(timeout_s=10.0, clock=lambda: seconds[0])
    assert (await downloader.save((await serve(slow)).url(), path))[1] == 9 * SLOWEST


async def test_the_whole_time_of_a_mask_is_not_a_files(
    serve: Serve, client: Client, tmp_path: Path
) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "2"})
        await response.prepare(request)
        await response.write(b"x")
        began = time.monotonic()
        while time.monotonic() - began < 0.3:
            await asyncio.sleep(0.001)
        await response.write(b"x")
        return response

    peer = await serve(slow)
    downloader = client(timeout_s=0.1, clock=lambda: 0.0)
    assert (await downloader.save(peer.url(), tmp_path / "0"))[1] == 2
    assert (await failure(downloader, peer.url())).reason == "download-timeout"


async def test_a_file_that_trickles_is_given_up(
    serve: Serve, client: Client, tmp_path: Path
) -> None:
    seconds = [0.0]

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(BODY))})
        await response.prepare(request)
        while request.transport is not None:
            await response.write(b"x")
            seconds[0] += 1
            await asyncio.sleep(0.001)
        return response

    peer = await serve(trickle)
    downloader = client(timeout_s=10.0, clock=lambda: seconds[0])
    error = await saving(downloader, peer.url(), tmp_path / "0")
    assert isinstance(error, Transient)
    assert error.reason == "download-timeout"


async def test_headers_that_do_not_end_end_with_the_whole_time(
    serve: Serve, client: Client, tmp_path: Path
) -> None:
    peer: Peer | None = None

    async def silent(_: web.Request) -> web.StreamResponse:
        assert peer is not None
        await peer.released.wait()
        return web.Response()

    peer = await serve(silent)
    error = await saving(client(timeout_s=0.1, stall_s=60.0), peer.url(), tmp_path / "0")
    assert error.reason == "download-timeout"


def _is_there(path: Path) -> bool:
    return path.exists()


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def test_a_file_is_asked_for_as_a_body_is(
    serve: Serve, client: Client, tmp_path: Path
) -> None:
    other = await serve(whole)
    peer = await serve(says(307, Location=other.url()))
    await client().save(peer.url(), tmp_path / "0", authorization=KEY)
    assert (peer.keys, other.keys) == ([KEY], [None])
    narrow = client(hosts=frozenset({"files.example"}))
    assert (await saving(narrow, peer.url(), tmp_path / "1")).reason == "download-host"
    error = await saving(client(), (await serve(says(404))).url(), tmp_path / "2")
    assert error.reason == "download-missing"


async def test_a_disk_that_refuses_is_not_the_hosts_fault(
    serve: Serve, client: Client, tmp_path: Path
) -> None:
    peer = await serve(whole)
    for path in (tmp_path / "no-folder" / "0", tmp_path):
        with pytest.raises(Transient) as caught:
            await client().save(peer.url(), path)
        assert caught.value.reason == "download-disk"
        assert "no-folder" not in caught.value.message


async def test_a_file_that_is_there_is_never_written_over(
    serve: Serve, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "0"
    path.write_bytes(b"kept")
    with pytest.raises(Transient):
        await client().save((await serve(whole)).url(), path)
    assert path.read_bytes() == b"kept"


async def test_a_cancelled_file_is_removed(serve: Serve, client: Client, tmp_path: Path) -> None:
    begun = asyncio.Event()
    peer: Peer | None = None

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(9 << 20)})
        await response.prepare(request)
        await response.write(bytes(3 << 20))
        begun.set()
        assert peer is not None
        await peer.released.wait()
        return response

    peer = await serve(half)
    saved = asyncio.create_task(client().save(peer.url(), tmp_path / "0"))
    await begun.wait()
    saved.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saved
    assert not _is_there(tmp_path / "0")


@pytest.mark.parametrize(
    ("given", "wait_s"),
    [
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0), ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", 30.0), ("Wed Oct 21 07:28:30 2026", 30.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 3600.0), ("Wed, 21 Oct 2026", None), ("", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None), ("Wed, 99 Oct 2026 07:28:00 GMT", None),
        ("0" * 8000, 3600.0), (", " * 4000, None), ("Wed, 21 Oct 2026 07:28:30 -0000", 30.0),
    ],
)  # fmt: skip
def test_retry_after_may_be_a_date(given: str, wait_s: float | None) -> None:
    at = datetime(2026, 10, 21, 7, 28, tzinfo=UTC).timestamp()
    assert retry_after_s({"Retry-After": given}, now=lambda: at) == wait_s
