"""The target ``webhook``: the CloudEvent by POST, signed as Standard Webhooks says.

The event and its id are the same at every try, only time and signature are of the moment. Any 2xx
means that it began; a receiver knows a repetition by ``webhook-id``, and answers it 2xx as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from handlers.targets.call import Caller, refusal
from handlers.targets.signing import signed_headers
from handlers.targets.trigger import Fired, Trigger

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"


class WebhookTarget:
    """Implements ``Target``. Every one of ``keys`` signs."""

    def __init__(
        self,
        url: str,
        *,
        keys: Sequence[bytes],
        timeout_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not keys:
            raise ValueError("a webhook needs a key to be signed with")
        self._url = url
        self._keys = tuple(keys)
        self._clock = clock
        self._caller = Caller(timeout_s=timeout_s)

    async def close(self) -> None:
        await self._caller.close()

    async def fire(self, trigger: Trigger) -> Fired:
        body = trigger.body()
        signed = signed_headers(trigger.key, int(self._clock()), body, keys=self._keys)
        headers = {"Content-Type": CONTENT_TYPE, **signed}
        answer = await self._caller.ask("POST", self._url, headers=headers, body=body)
        if 200 <= answer.status < 300:
            return Fired()
        raise refusal(answer)
