"""Conversations that a template or a tokenizer is tried on: every role, several turns, and text that trips rules."""

from __future__ import annotations

from tunewright.records import Message

TEXTS = (
    "Who had the lower risk?",
    "In 2024, 17 of 426 patients (3.9%) did; 'twas  odd\u2014wasn't it?",
    "First line.\n\n- a list\n\t- tabbed\nJosé naïvely paid €5 for 東京 🦙 ñandú",
    "def f(x):\n        return x ** 2  # <b>bold</b>",
    'We\'ll see: www.example.org/a_b?c=1&d=2 ... "quoted"',
)


def probes() -> list[tuple[Message, ...]]:
    """Return conversations that end with a user's turn, with and without a system turn."""
    told = []
    for number, text in enumerate(TEXTS):
        others = [TEXTS[(number + step) % len(TEXTS)] for step in (1, 2, 3)]
        spoken = (_turn("user", text), _turn("assistant", others[0]), _turn("user", others[1]))
        system = _turn("system", others[2])
        told += [spoken[:1], (system, *spoken[:1]), spoken, (system, *spoken)]
        told.append((*spoken, _turn("assistant", others[2]), _turn("user", text)))
    return told


def _turn(role: str, content: str) -> Message:
    return Message.model_validate({"role": role, "content": content})
