"""Who chooses a URL chooses no address: whatever names, answers of the resolver, redirects and
spellings are tried, over real sockets, nobody but who may be asked is ever connected to.

127.0.0.1 stands for what may be asked (a network that is named), 127.0.0.2 for what may not.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest

from consumer.download import Downloader
from consumer.errors import GroundwireError, Permanent, Transient
from tests.certificates import write_certificates
from tests.seeds import seeds

GOOD, BAD = "127.0.0.1", "127.0.0.2"
NAMED = (ip_network(f"{GOOD}/32"),)
KEY = "Bearer canary-key"
BODY = b"body"
OTHERS = ("10.0.0.1", "169.254.169.254", "8.8.8.8", "100.64.0.1", "::1", "fe80::1", "64:ff9b::1")

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass
class Two:
    """A server that may be asked and one that may not, at one port; each request is kept."""

    port: int = 0
    good: list[bytes] = field(default_factory=list)
    bad: list[bytes] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)

    async def answer(
        self, seen: list[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                seen.append(b"")  # a connection alone is one too many
                seen[-1] = await reader.readuntil(b"\r\n\r\n")
                if self.locations:
                    to = self.locations.pop(0)
                    head = f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
                    writer.write(head.encode())
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + BODY)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            if not seen[-1]:
                seen.pop()
            writer.close()


@asynccontextmanager
async def two() -> AsyncIterator[Two]:
    both = Two()
    allowed = await asyncio.start_server(lambda r, w: both.answer(both.good, r, w), GOOD, 0)
    both.port = allowed.sockets[0].getsockname()[1]
    connected: list[bytes] = both.bad

    async def refused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(b"connected")
        await both.answer(connected, reader, writer)

    forbidden = await asyncio.start_server(refused, BAD, both.port)
    async with allowed, forbidden:
        yield both


async def numbers(host: str, port: int) -> Sequence[str]:
    """This machine's resolver for hosts that are numbers however spelled, without asking a DNS."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )
    return [str(about[4][0]) for about in found]


@asynccontextmanager
async def client(lookup: Lookup = numbers, **given: object) -> AsyncIterator[Downloader]:
    settings: dict[str, object] = {"networks": NAMED, "timeout_s": 30.0, "stall_s": 30.0, **given}
    downloader = Downloader(lookup=lookup, **settings)  # type: ignore[arg-type]
    try:
        yield downloader
    finally:
        await downloader.close()


async def outcome(downloader: Downloader, url: str, **given: str) -> bytes | GroundwireError:
    error: GroundwireError
    try:
        return await downloader.get(url, **given)
    except (Transient, Permanent) as raised:
        error = raised
    assert "canary" not in error.message
    return error


def answering(rng: random.Random, answers: dict[str, list[list[str]]]) -> Lookup:
    """Gives a name's answers in turn, as who rebinds it does; the last for ever."""

    async def lookup(host: str, _: int) -> Sequence[str]:
        await asyncio.sleep(0)
        left = answers[host]
        return left.pop(0) if len(left) > 1 else left[0]

    return lookup


@pytest.mark.parametrize("seed", seeds())
async def test_a_name_that_is_rebound_leads_nowhere_else(seed: int) -> None:
    """Some answers are good, some bad, some mixed; many are asked at once, connections are kept."""
    rng = random.Random(seed)
    kinds = [[GOOD], [BAD], [GOOD, BAD], [BAD, GOOD], [GOOD, rng.choice(OTHERS)]]
    answers = {f"h{n}.example": [rng.choice(kinds) for _ in range(20)] for n in range(4)}
    async with two() as servers, client(answering(rng, answers)) as downloader:
        urls = [f"http://h{rng.randrange(4)}.example:{servers.port}/x?canary" for _ in range(60)]
        came: list[bytes | GroundwireError] = []
        while urls:
            at_once, urls = urls[:8], urls[8:]
            came += await asyncio.gather(*(outcome(downloader, url) for url in at_once))
    assert servers.bad == []
    for one in came:
        if isinstance(one, bytes):
            assert one == BODY
        else:
            assert isinstance(one, Permanent)
            assert one.reason in ("download-address", "download-plain-http")


async def test_the_address_that_was_judged_is_the_one_connected_to() -> None:
    answers = {"h.example": [[GOOD], [BAD]]}
    async with two() as servers, client(answering(random.Random(0), answers)) as downloader:
        assert await outcome(downloader, f"http://h.example:{servers.port}/") == BODY
        assert len(answers["h.example"]) == 1  # asked for once, for one connection
        assert (len(list(filter(None, servers.good))), servers.bad) == (1, [])


async def test_a_host_with_one_bad_address_is_not_asked_at_all() -> None:
    answers = {"h.example": [[GOOD, "10.0.0.1"]]}
    async with two() as servers, client(answering(random.Random(0), answers)) as downloader:
        error = await outcome(downloader, f"http://h.example:{servers.port}/")
        assert isinstance(error, Permanent)
        assert (error.reason, servers.good) == ("download-address", [])


async def test_a_connection_is_not_used_for_another_name() -> None:
    """Though the API itself may lie where nobody else may, and its connection is kept."""
    answers = {"api.example": [[BAD]], "evil.example": [[BAD]]}
    async with two() as servers:
        api = f"http://api.example:{servers.port}"
        async with client(answering(random.Random(0), answers), own_url=api) as downloader:
            assert await outcome(downloader, f"{api}/file") == BODY
            asked = len(servers.bad)
            error = await outcome(downloader, f"http://evil.example:{servers.port}/file")
            assert isinstance(error, Permanent)
            assert len(servers.bad) == asked


async def test_of_the_apis_host_only_its_own_port_may_be_asked() -> None:
    async with two() as servers, client(own_url=f"http://{BAD}:1/graphql") as downloader:
        error = await outcome(downloader, f"http://{BAD}:{servers.port}/")
        assert isinstance(error, Permanent)
        assert (error.reason, servers.bad) == ("download-address", [])


async def test_a_refused_address_is_not_told() -> None:
    answers = {"h.example": [["10.11.12.13"]]}
    async with client(answering(random.Random(0), answers)) as downloader:
        error = await outcome(downloader, "https://h.example/x?canary")
        assert isinstance(error, Permanent)
        assert "h.example" in error.message
        assert "10.11" not in error.message


async def test_a_host_that_does_not_resolve_may_do_so_later() -> None:
    async def nothing(_: str, __: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    async def empty(_: str, __: int) -> Sequence[str]:
        return []

    for lookup in (nothing, empty):
        async with client(lookup) as downloader:
            error = await outcome(downloader, "https://h.example/x?canary")
            assert isinstance(error, Transient)
            assert error.reason == "download-failed"


async def test_plain_http_to_a_public_host_is_refused_before_it_is_connected_to() -> None:
    answers = {"h.example": [["8.8.8.8"]]}
    async with client(answering(random.Random(0), answers)) as downloader:
        error = await outcome(downloader, "http://h.example/x?canary")
        assert isinstance(error, Permanent)
        assert error.reason == "download-plain-http"


FETCH = """
import asyncio, sys
from ipaddress import ip_network
from consumer.download import Downloader
from consumer.errors import GroundwireError

async def main():
    downloader = Downloader(networks=[ip_network("127.0.0.0/8"), ip_network("::1/128")])
    try:
        print(await downloader.get(sys.argv[1], authorization="Bearer canary-key"))
    except GroundwireError as error:
        print(error.reason)
    finally:
        await downloader.close()

asyncio.run(main())
"""


async def test_from_https_nothing_leads_to_http(tmp_path: Path) -> None:
    """Another process, which trusts the test's own authority from its start on."""
    write_certificates(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    async with two() as servers:
        asked = Two(locations=[f"http://localhost:{servers.port}/"])

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asked.answer(asked.good, reader, writer)

        async with await asyncio.start_server(answer, "localhost", 0, ssl=tls) as secure:
            url = f"https://localhost:{secure.sockets[0].getsockname()[1]}/"
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", FETCH, url, stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "SSL_CERT_FILE": str(tmp_path / "ca.pem")},
            )  # fmt: skip
            told, _ = await process.communicate()
    assert told.decode().strip() == "download-plain-http"
    assert any(b"canary-key" in request for request in asked.good)
    assert servers.good == []


# spellings


def spelled(rng: random.Random, address: str) -> str:
    """An IPv4 address as libraries and people have written it."""
    number = int(IPv4Address(address))
    parts = [number >> shift & 255 for shift in (24, 16, 8, 0)]

    def digits(value: int) -> str:
        return rng.choice([str(value), hex(value), f"0{value:o}", f"0{value}", f"{value:#X}"])

    kept = rng.randrange(1, 5)
    tail = int.from_bytes(bytes(parts[kept - 1 :]), "big")
    classic = ".".join([*map(digits, parts[: kept - 1]), digits(tail)])
    high = f"{number >> 16:x}:{number & 0xFFFF:x}"
    fullwidth = "".join(chr(ord(one) + 0xFEE0) if one.isdigit() else one for one in address)
    return rng.choice([
        address, classic, classic, classic, f"[::ffff:{address}]", f"[::ffff:{high}]",
        f"[::{high}]", f"[64:ff9b::{high}]", f"[2002:{high}::1]", f"[::ffff:0:{high}]",
        f"[{address}]",
        f"[::ffff:{address}%25lo]", f"{address}.", f"{address}%00", fullwidth,
        address.replace(".", "\u3002"), f"%31{address[1:]}", f"{GOOD}@{address}",
        f"{GOOD}:80@{address}", f"{GOOD}\\@{address}", f"{address}\\.{GOOD}", f"\t{address}",
        f"{address}\n", f" {address}", f"{address}\u00ad", f"{address}#@{GOOD}", str(number),
    ])  # fmt: skip


@pytest.mark.parametrize("seed", seeds())
async def test_no_spelling_leads_to_an_address_that_is_refused(seed: int) -> None:
    rng = random.Random(seed)
    async with two() as servers, client() as downloader:
        for _ in range(40):
            scheme = rng.choice(["http", "HTTP", "http", "https"])
            host = spelled(rng, BAD)
            slashes = rng.choice(["//", "//", "//", "/", "///", "\\\\"])
            url = f"{scheme}:{slashes}{host}:{servers.port}/x?canary"
            assert not isinstance(await outcome(downloader, url, authorization=KEY), bytes)
        assert servers.bad == []
        assert await outcome(downloader, f"http://{GOOD}:{servers.port}/") == BODY


@pytest.mark.parametrize("seed", seeds())
async def test_redirects_lead_nowhere_else_and_take_no_key_along(seed: int) -> None:
    """The API answers with redirects to spellings of itself, of its neighbours and of us."""
    rng = random.Random(seed)
    for _ in range(6):
        async with (
            two() as servers,
            client(own_url=f"http://{GOOD}:1/", stall_s=0.2) as downloader,  # TLS is not answered
        ):
            here = f"{GOOD}:{servers.port}"
            servers.locations = [
                rng.choice([
                    f"http://{spelled(rng, rng.choice([GOOD, BAD]))}:{servers.port}/x?canary",
                    f"//{spelled(rng, BAD)}:{servers.port}/", "/there?canary", f"\\\\{BAD}/",
                    f"https://{here}/", f"http:{BAD}:{servers.port}", f"http://{here}\\@{BAD}/",
                ])
                for _ in range(rng.randrange(1, 6))
            ]  # fmt: skip
            servers.locations = [to for to in servers.locations if "\n" not in to]
            await outcome(downloader, f"http://{here}/start", authorization=KEY)
            assert servers.bad == []
            assert not any(b"canary-key" in request for request in servers.good)


async def test_the_key_goes_to_the_apis_own_origin_and_no_other_however_it_is_given() -> None:
    async with two() as servers:
        api = f"http://{BAD}:{servers.port}"
        async with client(own_url=api) as downloader:
            await downloader.get(f"{api}/x", authorization=KEY)
            await downloader.get(f"http://{GOOD}:{servers.port}/x", authorization=KEY)
        assert any(b"canary-key" in request for request in servers.bad)
        assert not any(b"canary-key" in request for request in servers.good)
