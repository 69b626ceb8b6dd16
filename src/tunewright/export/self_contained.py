"""The chat template as other programs must have it: with the variables that training rendered it with written in."""

from __future__ import annotations

import re
from typing import Any

from tunewright.models.template import TEMPLATE_VARIABLES

# What `render` does with a template that refuses a system turn, in the template's own language.
_SYSTEM_INTO_FIRST_TURN = (
    "{% if messages | length > 1 and messages[0]['role'] == 'system' %}"
    "{% set messages = [{'role': messages[1]['role'], 'content': messages[0]['content'] + '\\n\\n' + "
    "messages[1]['content']}] + messages[2:] %}{% endif %}"
)
_TRAINING_MARK = re.compile(r"(\{%-?\s*)(end)?generation(\s*-?%\})")


def self_contained_template(tokenizer: Any) -> str:
    """Return a template that renders a conversation as ``render`` does, without being told any variable."""
    template = str(tokenizer.chat_template)
    # transformers' own mark of what is trained on; other programs stop at it.
    template = _TRAINING_MARK.sub(lambda m: f"{m[1]}{'endif' if m[2] else 'if true'}{m[3]}", template)
    head = _SYSTEM_INTO_FIRST_TURN if _refuses_system(tokenizer) else ""
    for name, value in TEMPLATE_VARIABLES.items():
        if re.search(rf"\b{name}\b", template):
            literal = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else f"'{value}'"
            head += f"{{% set {name} = {literal} %}}"
    return head + template


def _refuses_system(tokenizer: Any) -> bool:
    from jinja2.exceptions import TemplateError

    turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    try:
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **TEMPLATE_VARIABLES)
    except TemplateError:
        return True
    return False
