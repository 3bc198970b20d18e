"""The pictures that a simulated Labelbox serves of what was drawn."""

from __future__ import annotations

from collections.abc import Iterable

from consumer.demo.labelbox_rows import Drawing, composite_id


class Masks:
    """PNGs by feature and frame, or by the composite's id; an edit replaces them."""

    def __init__(self) -> None:
        self._single: dict[tuple[str, int], tuple[str, str, bytes]] = {}  # -> row, group, PNG
        self._composites: dict[str, bytes] = {}

    def keep(self, row_id: str, drawings: Iterable[Drawing]) -> None:
        """Raises ``ValueError`` for what the vendor's URLs cannot tell apart."""
        for one in drawings:
            if one.png is None or one.feature is None:
                continue
            if one.color is not None:
                self._composites[composite_id(one)] = one.png
                continue
            mine = (row_id, one.group)
            if self._single.get((one.feature, one.frame), (*mine, b""))[:2] != mine:
                raise ValueError(
                    f"feature {one.feature} frame {one.frame} is drawn in another group: "
                    "the vendor's mask URL cannot tell them apart"
                )
            self._single[one.feature, one.frame] = (*mine, one.png)

    def forget(self, row_id: str) -> None:
        self._single = {key: one for key, one in self._single.items() if one[0] != row_id}

    def places(self) -> list[tuple[str, int]]:
        """(feature, frame) of every picture of one object alone."""
        return list(self._single)

    def single(self, feature: str, frame: int) -> bytes | None:
        found = self._single.get((feature, frame))
        return None if found is None else found[2]

    def composite(self, mask_id: str) -> bytes | None:
        return self._composites.get(mask_id)
