"""The chat template as llama.cpp must have it: rendering what training rendered, whatever llama.cpp itself tells it."""

from __future__ import annotations

import re
from typing import Any

from tunewright.export.words import portable_template, with_variables

_TRAINING_MARK = re.compile(r"(\{%-?\s*)(end)?generation(\s*-?%\})")


def self_contained_template(tokenizer: Any) -> str:
    """Return the portable template with its variables fixed: llama.cpp sets some itself, such as a chain of thought."""
    template = portable_template(tokenizer)
    # transformers' own mark of what is trained on; llama.cpp stops at it.
    plain = _TRAINING_MARK.sub(lambda m: f"{m[1]}{'endif' if m[2] else 'if true'}{m[3]}", template)
    return with_variables(template, "{{% set {name} = {value} %}}") + plain
