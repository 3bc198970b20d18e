"""Canonical JSON is RFC 8785's, whichever way it is written."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.model import canonical

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS, lambda one: st.lists(one) | st.dictionaries(st.text(), one), max_leaves=20
)


@settings(max_examples=500, deadline=None)
@given(VALUES)
def test_the_quick_way_writes_what_the_standard_s_library_writes(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [2**53, [-(2**53)], float("nan"), "\ud800", {"a": "\udfff"}])
def test_what_has_no_canonical_form_is_refused_by_both(value: Any) -> None:
    with pytest.raises(rfc8785.CanonicalizationError):
        rfc8785.dumps(value)
    with pytest.raises(rfc8785.CanonicalizationError):
        canonical(value)


def test_fractions_and_keys_beyond_ascii_take_the_slow_way() -> None:
    assert canonical({"é": 1.0, "z": -4.0}) == '{"z":-4,"é":1}'.encode()
