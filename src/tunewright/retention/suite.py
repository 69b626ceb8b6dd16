"""The bundled items of the retention suite, and balanced draws from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Any

from tunewright.records import RetentionItem, digest

CHOICES, FORMATS, PASSAGES = "choices.jsonl", "formats.jsonl", "passages.jsonl"


def load_suite() -> list[RetentionItem]:
    """Return all bundled items: choices, formats, passages, each in the order of its file."""
    return [
        *(_choice(row) for row in _rows(CHOICES)),
        *(_format(row) for row in _rows(FORMATS)),
        *(_passage(row) for row in _rows(PASSAGES)),
    ]


def suite_digest() -> str:
    """Return a digest of the bundled items."""
    return digest([item.model_dump() for item in load_suite()])


def draw(items: Sequence[RetentionItem], number: int, seed: int) -> list[RetentionItem]:
    """Return this number of the items, or all where there are fewer, in their own order.

    Kinds, the topics of each kind and the levels of each topic keep their shares as nearly as whole numbers can. A
    smaller draw of the same seed is part of every larger draw: the items are ordered once, and cut.
    """
    chosen = {item.id for item in _spread(items, _STRATA, seed)[:number]}
    return [item for item in items if item.id in chosen]


def _spread(
    items: Sequence[RetentionItem], strata: Sequence[Callable[[RetentionItem], object]], seed: int
) -> list[RetentionItem]:
    """Return the items in an order whose every beginning is balanced over the strata.

    The k-th of a group of m has position (k + 1/2) / m: apportionment by Sainte-Laguë, where a larger total never
    takes an item away.
    """
    if not strata:
        return sorted(items, key=lambda item: digest("kept", seed, item.id))
    groups: dict[object, list[RetentionItem]] = {}
    for item in items:
        groups.setdefault(strata[0](item), []).append(item)
    positioned = [
        ((index + 0.5) / len(group), digest("kept", seed, name), item)
        for name, group in groups.items()
        for index, item in enumerate(_spread(group, strata[1:], seed))
    ]
    return [item for *_, item in sorted(positioned, key=lambda entry: entry[:2])]


def _rows(name: str) -> Iterator[dict[str, Any]]:
    text = resources.files("tunewright.retention").joinpath(name).read_text(encoding="utf-8")
    return (json.loads(line) for line in text.splitlines() if line.strip())


def _choice(row: dict[str, Any]) -> RetentionItem:
    return RetentionItem(
        id=row["id"],
        kind="choice",
        topic=row["topic"],
        level=row["level"],
        text=row["question"],
        options=tuple(row["options"]),
        right=row["right"],
    )


def _format(row: dict[str, Any]) -> RetentionItem:
    checks = tuple(row["checks"])
    return RetentionItem(id=row["id"], kind="format", topic=checks[0]["kind"], text=row["prompt"], checks=checks)


def _passage(row: dict[str, Any]) -> RetentionItem:
    return RetentionItem(id=row["id"], kind="passage", topic=row["kind"], text=row["text"])


_STRATA: tuple[Callable[[RetentionItem], object], ...] = (
    lambda item: item.kind,
    lambda item: item.topic,
    lambda item: item.level,
)
