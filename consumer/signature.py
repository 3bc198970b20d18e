"""Constant-time checks of signatures and tokens, over raw bytes; no I/O.

A check never raises for what a stranger can send, and never tells how close he was. Where no secret
is live, nothing matches.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal

MAX_SECRET_TEXT = 512  # characters of a signature or token that are looked at at all


def token_matches(given: str, secrets: Sequence[bytes]) -> bool:
    """Whether ``given`` equals one of the live secrets; every secret is compared."""
    if not given or len(given) > MAX_SECRET_TEXT:
        return False
    sent = given.encode("utf-8", "surrogatepass")
    return _any([hmac.compare_digest(sent, secret) for secret in secrets if secret])


def hmac_matches(
    hex_digest: str, body: bytes, secrets: Sequence[bytes], algorithm: Literal["sha1", "sha256"]
) -> bool:
    """Whether ``hex_digest`` is HMAC(secret, body) for one of the live secrets (RFC 2104)."""
    if not hex_digest or len(hex_digest) > MAX_SECRET_TEXT:
        return False
    sent = hex_digest.lower().encode("utf-8", "surrogatepass")
    made = [
        hmac.new(secret, body, getattr(hashlib, algorithm)).hexdigest().encode("ascii")
        for secret in secrets
        if secret
    ]
    return _any([hmac.compare_digest(sent, one) for one in made])


def _any(checks: list[bool]) -> bool:
    found = False
    for check in checks:  # no short cut: which secret matched takes the same time
        found |= check
    return found
