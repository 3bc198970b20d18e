"""Requests as no platform would send them: valid ones of both platforms, mutated by a seed.

Each carries what may be answered: only what is signed over the very bytes that were sent may get a
202, and nothing ever another 5xx than 503.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SECRET = "labelbox-secret-0123456789"
TOKEN = "redbrick-token-0123456789"
PROJECT = "project-1"  # of Labelbox
RED_PROJECT = "project-2"
ORGANIZATION = "organization-1"

_BEFORE_VALUES, _AFTER_VALUES = re.compile(rb"[:{\[]"), re.compile(rb"[,}\]]")

RAW_VALUES = (
    *("null", "true", "0", "-0", "01", "9007199254740993", "1" + "0" * 400, "9" * 5000, "-1"),
    *("1e308", "1e999", "-1e-999", "0.1" + "1" * 3000, "NaN", "Infinity", "-Infinity", "+1", ".5"),
    *('""', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"\\u202e"', '"a\\nb"', '"\\x"', '"'),
    *('"' + "a" * 5000 + '"', "[]", "{}", "[[[[[]]]]]", "[" * 3000, '{"a":' * 3000, "}", "]", ""),
    *(
        '{"id":1,"id":2}',
        '{"id":"x"}',
        '"2026-01-01T00:00:00Z"',
        '"9999-12-31T23:59:59.9Z"',
        "1e11",
    ),
    *('"0001-01-01"', "1.7e18", "[1,2", '"\x00"', '"\x7f"', "'a'", "/**/1", "tru", '"\u00e9"'),
)
ODD_HEADERS = (
    ("Content-Type", b"application/xml; charset=utf-16"),
    ("Content-Encoding", b"gzip"),
    ("Content-Encoding", b"identity"),
    ("X-Forwarded-For", b"203.0.113.9, ::1%zone\x1b[31m, nonsense"),
    ("Accept", b"text/html"),
    ("X-Odd", bytes(range(0x80, 0x100))),
    ("X-Empty", b""),
    ("X-Long", b"v" * 7000),
    ("Cookie", b"a=b; " * 200),
    ("Transfer-Encoding", b"identity"),
    ("Connection", b"close"),
    ("X-Labelbox-Event", b"\xff\xfe"),
    ("X-Labelbox-Id", b"i" * 3000),
    ("X-Hub-Signature", b"sha1="),
    ("X-HTTP-Method-Override", b"DELETE"),
    ("Range", b"bytes=0-1"),
    ("If-Match", b"*"),
)
ODD_TARGETS = (
    *(
        "/",
        "/hooks",
        "/hooks/",
        "/hooks//",
        "/hooks/labelbox/",
        "/hooks/other",
        "/metrics",
        "//",
        "*",
    ),
    *("/hooks/labelbox%00", "/hooks/%6cabelbox", "/hooks/../hooks/redbrick", "/hooks/labelbox;a=b"),
    *(
        "http://other.example/hooks/labelbox",
        "http://[::1/hooks",
        "/%ff%fe",
        "/%",
        "/?" + "q" * 7000,
    ),
    *("/hooks/redbrick?token=&token=", "/hooks/redbrick?token[]=a", "/hooks/redbrick?%74oken=x#f"),
)
ODD_SIGNATURES = (
    *(b"", b"sha256=", b"sha1=", b"=", b"sha256", b"md5=00", b"sha256=" + b"0" * 64),
    *(b"sha256=" + b"\xff" * 64, b"sha256=" + b"a" * 7000, b"SHA256=" + b"0" * 64, b"0" * 64),
)
TEARS = (
    (b"\r\n", b"\n"),
    (b"\r\n", b"\r"),
    (b"\r\n", b"\r\n "),  # a folded line
    (b": ", b":\x00"),
    (b": ", b" : "),
    (b"HTTP/1.1", b"HTTP/9.9"),
    (b"HTTP/1.1", b"HTTP/1.1\x00"),
    (b"POST ", b"CONNECT "),
    (b"POST ", b"P\x00ST "),
    (b"POST ", b"PRI "),
    (b"POST /", b"POST "),
    (b"POST ", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),  # TLS
    (b"Host:", b"Content-Length: 3\r\nHost:"),
    (b"Host:", b"Content-Length: -1\r\nHost:"),
    (b"Host:", b"Content-Length: 1e3\r\nHost:"),
    (b"Host:", b"Content-Length: 99999999999999999999\r\nHost:"),
    (b"Host:", b"Transfer-Encoding: chunked\r\nHost:"),
    (b"Host:", b"Transfer-Encoding: gzip, chunked\r\nHost:"),
    (b"Host:", b"Transfer-Encoding: \x0bchunked\r\nHost:"),
    (b"Host:", b"Host: a\r\nHost: b\r\nHost:"),
    (b"Host:", b"Upgrade: websocket\r\nConnection: upgrade\r\nHost:"),
    (b"Host:", b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHost:"),
    (b"Host:", b"Expect: 100-continue\r\nHost:"),
    (b"Host:", b"Expect: 200-ok\r\nHost:"),
    (b"Host:", b"X: " + b"y" * 9000 + b"\r\nHost:"),
    (b"Host:", b"X: y\r\n" * 150 + b"Host:"),
    (b"Host:", b"X" * 9000 + b": y\r\nHost:"),
    (b"Host:", b": no name\r\nHost:"),
    (b"Host:", b"Na me: x\r\nHost:"),
)
CHUNK_TEARS = (
    b"zz\r\n",
    b"-1\r\n",
    b"ffffffffffffffffff\r\n",
    b"1\r\nab\r\n",
    b"\r\n",
    b"5;a\n",
    b"0x5\r\n",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. ``whole``: framed rightly, so that exactly one answer comes."""

    data: bytes
    signed: bool
    whole: bool = True


@dataclass(frozen=True, slots=True)
class _Draft:
    """A request that is not yet bytes."""

    target: str
    body: bytes
    headers: tuple[tuple[str, bytes], ...]
    signed: bool
    method: str = "POST"
    version: str = "HTTP/1.1"


class Fuzzer:
    """The requests of one seed; ``bodies`` are further valid JSON texts to begin with."""

    def __init__(self, seed: int, bodies: Sequence[bytes] = ()) -> None:
        self.random = random.Random(seed)
        self._number = 0
        self._bodies = tuple(bodies)
        self._changes: tuple[Callable[[_Draft], _Draft], ...] = (
            self._headers,
            self._target,
            self._method,
            self._version,
            self._unsigned,
            self._twice,
        )

    def good(self) -> Asked:
        """As a platform sends it."""
        red = self._is_red()
        return self._whole(self._draft(red, self._body(red)))

    def signed(self, body: bytes) -> bytes:
        """This body, sent by somebody who knows RedBrick's token."""
        return self._whole(self._draft(True, body)).data

    def next(self) -> Asked:
        """One request in ten is good, and one would be, were it signed."""
        turn = self.random.random()
        if turn < 0.1:
            return self.good()
        red = self._is_red()
        if turn < 0.2:
            return self._whole(self._unsigned(self._draft(red, self._body(red))))
        body = self._body(red if turn < 0.9 else not red)
        if self._bodies and self.random.random() < 0.2:
            body = self.random.choice(self._bodies)
        draft = self._draft(red, body if turn < 0.45 else self._spoilt(body))
        while self.random.random() < 0.4:
            draft = self.random.choice(self._changes)(draft)
        asked = self._chunked(draft) if self.random.random() < 0.2 else self._whole(draft)
        return self._torn(asked) if self.random.random() < 0.25 else asked

    def splits(self, data: bytes) -> list[bytes]:
        """The bytes in a few pieces, as a network may bring them."""
        if self.random.random() < 0.8 or len(data) < 2:
            return [data]
        at = sorted(self.random.randrange(1, len(data)) for _ in range(self.random.randint(1, 3)))
        return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]

    def _is_red(self) -> bool:
        return self.random.random() < 0.4

    def _body(self, red: bool) -> bytes:
        self._number += 1
        task = f"task-{self.random.randrange(10**9)}"
        if not red:
            return json.dumps(_labelbox(task)).encode()
        events = [_redbrick(f"{task}-{n}") for n in range(self.random.randint(0, 4))]
        return json.dumps({"version": "v1.0", "events": len(events), "payload": events}).encode()

    def _draft(self, red: bool, body: bytes) -> _Draft:
        common = (("Host", b"hooks.example"), ("Content-Type", b"application/json"))
        if red:
            return _Draft(f"/hooks/redbrick?token={TOKEN}", body, common, signed=True)
        digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        own = (
            ("X-Hub-Signature-256", f"sha256={digest}".encode()),
            ("X-Labelbox-Event", b"WORKFLOW_ACTION"),
            ("X-Labelbox-Id", str(self._number).encode()),
        )
        return _Draft("/hooks/labelbox", body, common + own, signed=True)

    def _spoilt(self, body: bytes) -> bytes:
        """The platform's secret in wrong hands: what is signed may be anything."""
        kind = self.random.randrange(7)
        if kind < 4:
            return self._odd_value(body)
        if kind == 4:
            return self._scratched(body)
        if kind == 5:
            return self.random.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b" ")) + body
        wide = body.decode().encode(self.random.choice(("utf-16", "utf-32", "utf-7")))
        return self.random.choice((b"", b"[]", b"{}", b"null", b"0", b'""', b"[{}]", wide))

    def _odd_value(self, body: bytes) -> bytes:
        """One value of the JSON, or a whole object, becomes another text."""
        places = [found.end() for found in _BEFORE_VALUES.finditer(body)]
        if not places:
            return body
        at = self.random.choice(places)
        value = self.random.choice(RAW_VALUES).encode("utf-8", "surrogatepass")
        after = _AFTER_VALUES.search(body, at)
        end = after.start() if after else len(body)
        return body[:at] + value + (body[end:] if self.random.random() < 0.8 else b"," + body[at:])

    def _scratched(self, data: bytes) -> bytes:
        scratched = bytearray(data)
        for _ in range(self.random.randint(1, 8)):
            at = self.random.randrange(len(scratched) + 1)
            length = self.random.randint(0, 8)
            scratched[at : at + length] = self.random.randbytes(self.random.randint(0, 8))
        return bytes(scratched)

    def _headers(self, draft: _Draft) -> _Draft:
        return replace(draft, headers=(*draft.headers, self.random.choice(ODD_HEADERS)))

    def _target(self, draft: _Draft) -> _Draft:
        """Some of them name the same hook; a token is gone then, a signature is not."""
        signed = draft.signed and TOKEN not in draft.target
        return replace(draft, target=self.random.choice(ODD_TARGETS), signed=signed)

    def _version(self, draft: _Draft) -> _Draft:
        return replace(draft, version="HTTP/1.0")

    def _method(self, draft: _Draft) -> _Draft:
        method = self.random.choice(("GET", "PUT", "DELETE", "OPTIONS", "TRACE", "post", "X-Y"))
        return replace(draft, method=method, signed=False)

    def _unsigned(self, draft: _Draft) -> _Draft:
        kept = tuple((n, v) for n, v in draft.headers if n != "X-Hub-Signature-256")
        odd = ("X-Hub-Signature-256", self.random.choice(ODD_SIGNATURES))
        wrong = self.random.choice(("", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), "%00", "%ff" * 9))
        target = draft.target.replace(TOKEN, wrong)
        return replace(draft, headers=(*kept, odd), target=target, signed=False)

    def _twice(self, draft: _Draft) -> _Draft:
        """A header, or the token, sent twice: whoever picks one of two may be misled."""
        twice = draft.headers[self.random.randrange(len(draft.headers))]
        signed = draft.signed and twice[0] != "X-Hub-Signature-256"
        target = draft.target.replace(f"token={TOKEN}", f"token={TOKEN}&token={TOKEN}")
        signed = signed and target == draft.target
        return replace(draft, headers=(*draft.headers, twice), target=target, signed=signed)

    def _head(self, draft: _Draft, framing: tuple[str, bytes]) -> bytes:
        lines = [f"{draft.method} {draft.target} {draft.version}".encode("latin-1")]
        lines += [name.encode() + b": " + value for name, value in (*draft.headers, framing)]
        return b"\r\n".join((*lines, b"", b""))

    def _whole(self, draft: _Draft) -> Asked:
        length = str(len(draft.body)).encode()
        data = self._head(draft, ("Content-Length", length)) + draft.body
        return Asked(data, draft.signed, _is_whole(draft))

    def _chunked(self, draft: _Draft) -> Asked:
        data, at = self._head(draft, ("Transfer-Encoding", b"chunked")), 0
        torn = self.random.random() < 0.2
        while at < len(draft.body):
            part = draft.body[at : at + self.random.choice((1, 7, 100, 4000))]
            extension = self.random.choice((b"", b"", b";a=b", b';a="\xff"', b";" + b"x" * 300))
            data += b"%x%s\r\n%s\r\n" % (len(part), extension, part)
            at += len(part)
        if torn:
            return Asked(data + self.random.choice(CHUNK_TEARS), signed=False, whole=False)
        trailer = self.random.choice((b"", b"", b"X-Hub-Signature-256: sha256=00\r\n", b"A: b\r\n"))
        return Asked(data + b"0\r\n" + trailer + b"\r\n", draft.signed, whole=False)

    def _torn(self, asked: Asked) -> Asked:
        """No longer framed as it was; signed still, for what changed may not matter."""
        kind = self.random.randrange(4)
        if kind == 0:
            data = self._scratched(asked.data)
        elif kind == 1:
            data = asked.data[: self.random.randrange(len(asked.data) + 1)]
        else:
            old, new = self.random.choice(TEARS)
            data = asked.data.replace(old, new, self.random.choice((1, 1, 3)))
        return Asked(data, asked.signed, whole=False)


def _is_whole(draft: _Draft) -> bool:
    """Whether whoever frames strictly may still say that this is one request."""
    names = [name.lower() for name, _ in draft.headers]
    odd = {"transfer-encoding", "connection", "content-encoding"} & set(names)
    return not odd and len(names) == len(set(names)) and draft.method == "POST"


def _labelbox(task: str) -> dict[str, Any]:
    step = {"action": "Approve", "created_at": "2026-01-02T03:04:05Z", "created_by": "a@b.example"}
    details = {"workflow_history": [{**step, "next_task_name": "Done"}, {**step, "action": "Move"}]}
    return {
        "data_row": {"id": task, "external_id": "study\u00e9"},
        "projects": {PROJECT: {"name": "P", "project_details": details}},
        "updatedAt": "2026-01-02T03:04:05.678Z",
    }


def _redbrick(task: str) -> dict[str, Any]:
    data = {
        "orgId": ORGANIZATION,
        "projectId": RED_PROJECT,
        "taskId": task,
        "stageName": "Review_1",
    }
    return {"event": "TASK_ENTERED_STAGE", "id": f"e-{task}", "timestamp": 1.7e9, "data": data}


def recorded(folder: Path) -> list[bytes]:
    """The bodies of real webhooks, recorded as files named ``*.body.json`` below a folder."""
    return [path.read_bytes() for path in sorted(folder.rglob("*.body.json"))]
