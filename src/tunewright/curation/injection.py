"""Samples whose text addresses a model: none of them may teach the student to obey its documents."""

from __future__ import annotations

from functools import lru_cache

from tunewright.injection import control_token, injection_fault
from tunewright.records import OWN, Sample

_fault = lru_cache(maxsize=10_000)(injection_fault)  # a passage is shown by many samples


def address(sample: Sample) -> str | None:
    """Return how a sample's question, answer, evidence or shown passage addresses a model, or None.

    The system turn is the recipe's own. The user's own chats may ask for a role or give orders, as chats do: of
    these, control tokens alone count, which would break the template.
    """
    said = [message.content for message in sample.messages if message.role != "system"]
    if sample.task == OWN:
        found = next(filter(None, map(control_token, said)), None)
        return f"control token: {found}" if found else None
    quote = [sample.evidence.quote] if sample.evidence and sample.evidence.quote not in said else []
    return next(filter(None, map(_fault, [*said, *quote])), None)
