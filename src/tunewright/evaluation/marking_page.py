"""The marking page: one HTML file that works without network and does not know which side is which arm."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunewright.evaluation.marking_plan import KeyItem, MarkingKey, Pair
from tunewright.evaluation.page import page_file, render

PAGE = "marking.html"


def _shown(item: KeyItem, pair: Pair) -> dict[str, Any]:
    question = pair.question
    return {
        "item": item.item,
        "question": question.question,
        "passage": question.passage,
        "gold": question.gold,
        "evidence": question.evidence.quote if question.evidence else None,
        "sides": [
            {"name": item.left_name, "text": pair.texts[item.left]},
            {"name": item.right_name, "text": pair.texts[item.right]},
        ],
    }


def _inert(content: object) -> str:
    """Return JSON that can stand inside a script element: no tag, comment or entity can begin in it."""
    text = json.dumps(content)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _fingerprint(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def marking_page(key: MarkingKey, found: Sequence[Pair]) -> str:
    """Return the page. Of the key, only salted names and the order get in.

    Its content policy lets nothing run but the one script and the one style sheet, and nothing be fetched.
    """
    from markupsafe import Markup

    known: Mapping[str, Pair] = {pair.question.id: pair for pair in found}
    items = [_shown(item, known[item.question]) for item in key.items]
    script, sheet = page_file("marking.js"), page_file("marking.css")
    view = {
        "content": Markup(_inert({"page": key.page, "items": items})),
        "script": Markup(script),
        "sheet": Markup(sheet),
        "script_hash": _fingerprint(script),
        "sheet_hash": _fingerprint(sheet),
    }
    return render(PAGE, view)
