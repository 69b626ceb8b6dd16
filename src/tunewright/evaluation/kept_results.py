"""What the third ring measured: accuracy and cross-entropy, tuned minus base, paired item by item."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunewright.evaluation.measured import BASE, TUNED, Difference, Kept, KeptGroup
from tunewright.evaluation.statistics import paired, sign_flip
from tunewright.records import KeptAnswer

ACCURACY, CROSS_ENTROPY = "kept_accuracy", "kept_cross_entropy"

Pair = tuple[KeptAnswer, KeptAnswer]  # of base and of tuned, on one item


def measure_kept(answers: Sequence[KeptAnswer], level: float = 0.95) -> Kept | None:
    """Return what became of the general ability; None where base and tuned have no item in common.

    The unit is the item, and each is its own cluster: the items were written one by one and share no source.

    Args:
        answers: of base and tuned to the third ring.
        level: confidence level of the intervals.
    """
    of_tuned = {answer.item: answer for answer in answers if answer.arm == TUNED}
    pairs = [(a, of_tuned[a.item]) for a in answers if a.arm == BASE and a.item in of_tuned]
    if not pairs:
        return None
    judged = [pair for pair in pairs if pair[0].kind != "passage"]
    read = [pair for pair in pairs if pair[0].kind == "passage"]
    return Kept(
        accuracy=_difference(judged, ACCURACY, level),
        cross_entropy=_difference(read, CROSS_ENTROPY, level),
        groups=tuple(_groups(pairs)),
        num_lost=sum(tuned.value < base.value for base, tuned in judged),
        num_gained=sum(tuned.value > base.value for base, tuned in judged),
    )


def _difference(pairs: Sequence[Pair], measure: str, level: float) -> Difference | None:
    if not pairs:
        return None
    values, items = [tuned.value - base.value for base, tuned in pairs], [base.item for base, _ in pairs]
    return Difference(
        first=TUNED,
        second=BASE,
        measure=measure,
        interval=paired(values, items, level),
        sign_flip_p=sign_flip(values, items),
    )


def _groups(pairs: Sequence[Pair]) -> list[KeptGroup]:
    """Return the means by kind, each followed by those of its topics."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for base, tuned in pairs:
        groups.setdefault((base.kind, ""), []).append((base, tuned))
        groups.setdefault((base.kind, base.topic), []).append((base, tuned))
    return [
        KeptGroup(
            kind=found[0][0].kind,
            topic=topic,
            num=len(found),
            base=math.fsum(base.value for base, _ in found) / len(found),
            tuned=math.fsum(tuned.value for _, tuned in found) / len(found),
        )
        for (_, topic), found in sorted(groups.items())
    ]
