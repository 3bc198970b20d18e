"""Small readings of RedBrick's values, in the words of its own export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from consumer.platforms.texts import time_text, without_queries


def moment(text: str) -> str:
    """The platform's ISO time as a `timestamp`. Raises ``AttributeError``, ``OverflowError`` or
    ``ValueError``."""
    return time_text(datetime.fromisoformat(text.replace("Z", "+00:00")))


def user_name(user: Mapping[str, Any] | None) -> str | None:
    """A user as the export names one: the e-mail of a person, the name of a key."""
    user_id = (user or {}).get("userId")
    if not user or not user_id:
        return None
    if user_id.startswith("RB:"):
        return "System"
    if user_id.startswith("API:"):
        return f"API Key - {user.get('givenName') or user_id}"
    return user.get("email") or str(user_id)


def as_json(value: Any) -> Any:
    """A value that the API gives as JSON text, or as what it stands for."""
    return json.loads(value, parse_constant=_none) if isinstance(value, str) else value


def _none(_: str) -> None:
    """NaN and the infinities are no JSON; where JavaScript writes numbers they are null."""


def truth_value(value: Any) -> Any:
    """The texts true and false as booleans, as the export writes them."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value


def percent(score: float | None) -> float | None:
    """A score of 0 to 1 in per cent; None when it is negative, which means none."""
    value = (score or 0) * 100
    return None if value < 0 else value


def without_query(value: Any) -> Any:
    """The same value with every URL in it cut before its query: it may hold a signature."""
    if isinstance(value, dict):
        return {key: without_query(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_query(item) for item in value]
    if isinstance(value, str) and value.startswith(("http://", "https://", "altadb://")):
        return value.split("?", 1)[0]
    return without_queries(value) if isinstance(value, str) else value
