"""The places of a store, for every suite of its port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from consumer.ports import Store
from tests.contracts.places import Place, place_of


@pytest.fixture(params=["directory", "s3"])
def shared(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place that several processes can reach."""
    place = place_of(request)
    yield place
    place.close()


@pytest.fixture(params=["fake", "directory", "s3"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    place = place_of(request)
    yield place
    place.close()


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()
