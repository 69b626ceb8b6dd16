"""The block of reasoning before an answer, such as <think>...</think>."""

from __future__ import annotations

import re

# A prompt may end with the opening tag, so that the answer has the closing one alone.
_BLOCK = re.compile(r"\s*(?:<(think|thinking|reasoning|thought)>.*?</\1>|(?:(?!<think>).)*?</think>)\s*", re.DOTALL)


def strip_reasoning(text: str) -> str:
    """Return an answer without the block of reasoning that it starts with."""
    block = _BLOCK.match(text)
    return text[block.end() :] if block else text
