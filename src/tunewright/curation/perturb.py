"""Copies of a supported claim that are known to be unsupported: its evidence deleted, or one of its numbers changed."""

from __future__ import annotations

import re
from dataclasses import replace

from tunewright.curation.quantities import quantities
from tunewright.curation.verify import Claim
from tunewright.edits import other_number
from tunewright.records import digest
from tunewright.text import find_quote

_NUMBER = re.compile(r"(?<![A-Za-z\d.,])(?<![A-Za-z]-)\d+(?:[.,]\d+)*")


def without_evidence(claim: Claim) -> Claim | None:
    """Return the claim with its evidence cut out of the passage, or None when it is not there, or all there is."""
    place = find_quote(claim.evidence, claim.passage, 100)
    if place is None:
        return None
    start, end, _ = place
    passage = f"{claim.passage[:start].rstrip()} {claim.passage[end:].lstrip()}".strip()
    return replace(claim, passage=passage) if passage else None


def with_other_number(claim: Claim, follow: bool = False) -> Claim | None:
    """Return the claim with one number of its evidence changed in the passage, or None when it has none.

    Args:
        claim: a supported claim.
        follow: the quote follows the passage, so that only the answer still tells the old number; of the numbers of
            the evidence only those that the answer states are changed then.
    """
    place = find_quote(claim.evidence, claim.passage, 100)
    if place is None:
        return None
    start, end, _ = place
    stretch = claim.passage[start:end]
    told = {quantity.value for quantity in quantities(claim.answer)}
    numbers = [
        match
        for match in _NUMBER.finditer(stretch)
        if not follow or {quantity.value for quantity in quantities(match.group())} & told
    ]
    if not numbers:
        return None
    chosen = numbers[int(digest(claim.question, claim.evidence), 16) % len(numbers)]
    number = _other(chosen.group(), claim)
    if number is None:
        return None
    changed = stretch[: chosen.start()] + number + stretch[chosen.end() :]
    passage = claim.passage[:start] + changed + claim.passage[end:]
    return replace(claim, passage=passage, evidence=changed if follow else claim.evidence)


def _other(number: str, claim: Claim) -> str | None:
    """Return another number whose value neither passage, title nor question holds."""
    known = {quantity.value for quantity in quantities(f"{claim.passage}\n{claim.title}\n{claim.question}")}
    return other_number(
        number,
        lambda made: bool({quantity.value for quantity in quantities(made)} & known),
        int(digest(number, claim.question), 16),
    )
