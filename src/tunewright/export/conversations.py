"""Two hundred fixed conversations that a program's prompts are compared on: the ordinary ones, and the traps."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from tunewright.records import Message

NUM_CONVERSATIONS = 200
LONG = "very long"

_SENTENCES = (
    "What did the survey of nurses find?",
    "Explain in one sentence why the treated group had the lower risk.",
    "List three causes, then say which one matters most.",
    "How many patients were followed, and for how long?",
    "Is this true: the dose was doubled after week 12?",
    "Rewrite the paragraph for a reader of twelve.",
)
_UNICODE = (
    "Überprüfe die Größe: 5 µm ± 0,3 µm, naïve Schätzung?",
    "Что показало исследование за 2024 год?",
    "この研究では何人の患者が追跡されましたか。",
    "e\u0301 and é, ﬁ and fi, Å and Å, ½ and 1⁄2",
    "soft\u00adhyphen, zero\u200bwidth, no\u00a0break, nul-free \ufeffmark",
    "𝒳 ~ 𝒩(μ, σ²), ∑ᵢ xᵢ ≤ ∞, 文字化け",
)
_EMOJI = ("Nice 👍🏽", "👩‍👩‍👧‍👦 or 👨🏿‍🚀?", "🇩🇪🇫🇷🏴\U000e0067\U000e0062\U000e007f", "😀😃😄😁 x 10", "❤️ and ❤", "☎︎☎️")
_EDGES = (" {}", "{} ", "\n{}\n", "\t{}", "{}\n\n\n", "   {}   ", "{}\r\n", "\u00a0{}\u00a0")
_CONTROL = (
    "<|im_end|>",
    "<|im_start|>system",
    "</s>",
    "<s>",
    "[INST] {} [/INST]",
    "<|eot_id|>",
    "<start_of_turn>user",
    "<|endoftext|>",
    "<think>",
    "<|user|>",
    "{{ messages }}",
    "<<SYS>>",
)
_CODE = (
    "def f(x):\n    return {{'a': [x] * 2}}\n\n# {}",
    "```python\nfor i in range(10):\n\tprint(i)\n```\n{}",
    "SELECT * FROM t WHERE a <> 'b''c'; -- {}",
    '<a href="x?y=1&amp;z=2">{}</a>',
    "{{% if a %}}{{{{ b }}}}{{% endif %}} {}",
    "$ grep -E '^\\s+\\|' file | wc -l   # {}",
)
_RIGHT_TO_LEFT = (
    "ما الذي وجدته الدراسة عن المرضى؟",
    "כמה חולים נכללו במחקר (2024)?",
    "\u202bmixed עברית and English\u202c 12",
    "این مطالعه چند بیمار داشت؟ 42%",
)
_SYSTEM = ("You answer questions.", "Answer briefly. If you do not know, say so.", "Du antwortest auf Deutsch – kurz.")
_ANSWERS = ("The treated group.", "426 patients in three hospitals.", "I do not know.", "Yes:\n1. one\n2. two")

Draw = random.Random


def _turns(*contents: str, system: str = "") -> tuple[Message, ...]:
    spoken = [Message(role="assistant" if n % 2 else "user", content=content) for n, content in enumerate(contents)]
    return (Message(role="system", content=system), *spoken) if system else tuple(spoken)


def _framed(frames: Sequence[str]) -> Callable[[Draw], str]:
    return lambda draw: draw.choice(frames).format(draw.choice(_SENTENCES))


def _told(texts: Sequence[str]) -> Callable[[Draw], str]:
    return lambda draw: " ".join(draw.sample(texts, draw.randint(1, 3)))


def _control(draw: Draw) -> str:
    return f"{draw.choice(_SENTENCES)} {draw.choice(_CONTROL)} {draw.choice(_SENTENCES)}"


def _long(draw: Draw) -> str:
    return " ".join(draw.choice((*_SENTENCES, *_UNICODE)) for _ in range(draw.randint(60, 160)))


def conversations() -> list[tuple[str, tuple[Message, ...]]]:
    """Return (kind, conversation) pairs, each to be continued by the assistant; always the same ones."""
    draw = random.Random(20)
    kinds = list(_KINDS)
    found = []
    for number in range(NUM_CONVERSATIONS):
        kind = kinds[number % len(kinds)]
        said = _KINDS[kind]
        num_questions = draw.choice((1, 1, 2, 3)) if kind != LONG else 1
        contents = [part for _ in range(num_questions) for part in (said(draw), draw.choice(_ANSWERS))][:-1]
        system = draw.choice(_SYSTEM) if draw.random() < 0.5 else ""
        found.append((kind, _turns(*contents, system=system)))
    return found


_KINDS: Mapping[str, Callable[[Draw], str]] = {
    "plain": _told(_SENTENCES),
    "unicode": _told(_UNICODE),
    "emoji": _told(_EMOJI),
    "white space at the ends": _framed(_EDGES),
    "text like control tokens": _control,
    "code": _framed(_CODE),
    "right to left": _told(_RIGHT_TO_LEFT),
    LONG: _long,
}
