"""The target ``http``: a request of one's own, for whatever has an HTTP API.

Nothing but the statuses of ``success`` means that it began; 409 among them means that it had begun
already. Where the other side knows no idempotency key, the key is put where it can tell a
repetition itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from urllib.parse import urlsplit

from consumer.errors import Permanent
from handlers.targets.call import Caller, refusal
from handlers.targets.filling import fill_header, fill_json, fill_text, fill_url
from handlers.targets.trigger import Fired, Trigger

MAX_BODY_BYTES = 1 << 18
JSON = "application/json"

_OURS = frozenset({"connection", "content-length", "expect", "transfer-encoding"})
_SAMPLE = Trigger(
    key="k", policy="p", decision=1, reason="r", decided_at="2025-01-01T00:00:00.000000Z",
    log="o~1", log_size=1, log_root="r", snapshot="s", snapshot_name="n", snapshot_key="k",
    snapshot_sha256="0", tasks=1, added=1, changed=0,
)  # fmt: skip


class HttpTarget:
    """Implements ``Target``. URL, ``headers`` and ``body`` are templates, ``secret_headers`` are
    not. A body is JSON unless a header says that it is of another type; its values are filled in
    accordingly (`filling`): escaped in JSON, percent-encoded in a form, else as they are.

    Raises ``ValueError`` for what can make no request."""

    def __init__(
        self,
        url: str,
        *,
        method: str,
        headers: Mapping[str, str],
        secret_headers: Mapping[str, str],
        body: str,
        success: Collection[int],
        timeout_s: float,
    ) -> None:
        _check_names([*headers, *secret_headers])
        _check_values([*headers.values(), *secret_headers.values()])
        if "$" in urlsplit(url).netloc:
            raise ValueError("the URL's host cannot be filled in")
        typed = next((v for k, v in headers.items() if k.casefold() == "content-type"), None)
        self._url = url
        self._method = method
        self._headers = headers if typed is not None else {"Content-Type": JSON, **headers}
        self._secret_headers = secret_headers
        self._body = body
        self._fill = _fill_of(typed or JSON)
        self._success = frozenset(success)
        self._caller = Caller(timeout_s=timeout_s)
        self._fill(body, _SAMPLE.fields())

    async def close(self) -> None:
        await self._caller.close()

    async def fire(self, trigger: Trigger) -> Fired:
        fields = trigger.fields()
        body = self._fill(self._body, fields).encode()
        if len(body) > MAX_BODY_BYTES:
            said = f"the body is over {MAX_BODY_BYTES} bytes once it is filled in"
            raise Permanent("target-request", said)
        headers = {name: fill_header(value, fields) for name, value in self._headers.items()}
        answer = await self._caller.ask(
            self._method,
            fill_url(self._url, fields),
            headers={**headers, **self._secret_headers},
            body=body,
        )
        if answer.status in self._success:
            return Fired(already=answer.status == 409)
        raise refusal(answer)


def _fill_of(content_type: str) -> Callable[[str, Mapping[str, str]], str]:
    if "json" in content_type.casefold():
        return fill_json
    return fill_url if "urlencoded" in content_type.casefold() else fill_text


def _check_names(names: list[str]) -> None:
    seen: set[str] = set()
    for name in map(str.casefold, names):
        if name in _OURS:
            raise ValueError(f"the header {name} is not to be set")
        if name in seen:
            raise ValueError(f"the header {name} is given twice")
        seen.add(name)


def _check_values(values: list[str]) -> None:
    if not all(value.isprintable() for value in values):
        raise ValueError("a header's value holds a line's end or a control character")
