"""The signatures of Standard Webhooks (standardwebhooks.com, "Signature scheme"), symmetric: pure.

Signed are the id, the time and the very bytes of the body, so none of them can be exchanged.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence


def signed_headers(
    message_id: str, at: int, body: bytes, *, keys: Sequence[bytes]
) -> dict[str, str]:
    """The three headers; ``at`` is in seconds since 1970. Each key signs, so that receivers may
    change from one to the next."""
    content = b".".join((message_id.encode("ascii"), str(at).encode("ascii"), body))
    signatures = (hmac.new(key, content, hashlib.sha256).digest() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(
            f"v1,{base64.b64encode(signature).decode('ascii')}" for signature in signatures
        ),
    }
