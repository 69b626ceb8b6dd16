"""The block of reasoning before an answer, such as <think>...</think>."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_TAGS = ("think", "thinking", "reasoning", "thought")
_OTHER_TAGS = (
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel|>analysis<|message|>", "assistant<|channel|>final<|message|>"),
)
_HEAD = "<|channel|>final<|message|>"  # of an answer of gpt-oss that does not reason first
# Tokens of these tags that tokenizers count as special: to leave them out would join the reasoning to the answer.
TAG_TOKENS = frozenset(
    ["<think>", "</think>", "[THINK]", "[/THINK]", "◁think▷", "◁/think▷", "<seed:think>", "</seed:think>"]
    + ["<|channel|>", "<|message|>"]
)
OPENING, CLOSING = "<think>\n", "\n</think>\n\n"  # as most templates write them
_OTHERS = "|".join(f"{re.escape(opening)}.*?{re.escape(closing)}" for opening, closing in _OTHER_TAGS)
# A prompt may end with the opening tag, so that the answer has the closing one alone.
_BLOCK = re.compile(
    rf"\s*(?:<({'|'.join(_TAGS)})>.*?</\1>|{_OTHERS}|{re.escape(_HEAD)}|(?:(?!<think>).)*?</think>)\s*", re.DOTALL
)
_MARKS = re.compile(r"^<\w+>|</\w+>$")
_OPENING = re.compile(rf"\s*<(?:{'|'.join(_TAGS)})>")
_OPENED = re.compile(r"<think>\s*$")


def strip_reasoning(text: str) -> str:
    """Return an answer without the block of reasoning that it starts with."""
    block = _BLOCK.match(text)
    return text[block.end() :] if block else text


def text_to_score(text: str) -> str:
    """Return what is scored of an answer: what follows its reasoning; nothing where the reasoning does not end."""
    return "" if is_unfinished_reasoning(text) else strip_reasoning(text)


def split_reasoning(text: str) -> tuple[str, str]:
    """Return the reasoning before an answer, without its tags, and the answer; "" where there is none."""
    block = _BLOCK.match(text)
    if not block:
        return "", text
    thought = _MARKS.sub("", _MARKS.sub("", block.group().strip()))
    for opening, closing in _OTHER_TAGS:
        thought = thought.removeprefix(opening).removesuffix(closing)
    return thought.strip(), text[block.end() :]


def answer_after_reasoning(text: str) -> tuple[str, bool]:
    """Return a teacher's answer, and whether it reasons first; "" where the reasoning does not end.

    A server may also leave the marks of other families in place: Magistral, Kimi, gpt-oss.
    """
    for opening, closing in _OTHER_TAGS:
        if text.lstrip().startswith(opening):
            return text.partition(closing)[2].lstrip(), True
    answer = strip_reasoning(text)
    return ("", True) if is_unfinished_reasoning(answer) else (answer, answer != text)


def is_unfinished_reasoning(text: str) -> bool:
    """Return whether an answer starts with a block of reasoning that never ends."""
    opens = _OPENING.match(text) is not None or any(text.lstrip().startswith(opening) for opening, _ in _OTHER_TAGS)
    return opens and _BLOCK.match(text) is None


def ends_with_opening_tag(prompt: str) -> bool:
    """Return whether a prompt ends with the opening tag, so that its answer starts inside the block."""
    return _OPENED.search(prompt) is not None


def stream_without_reasoning(pieces: Iterable[str], opened: bool = False) -> Iterator[str]:
    """Yield an answer's pieces without the block of reasoning that it starts with.

    Text is held back as long as it may belong to the block. A block that never ends is yielded as it is, after the
    last piece, as ``strip_reasoning`` leaves it.

    Args:
        pieces: of one answer.
        opened: whether the answer starts inside the block (``ends_with_opening_tag``).
    """
    held, decided, started = "", False, False
    for piece in pieces:
        if decided:
            text = piece if started else piece.lstrip()
            started = started or bool(text)
            if text:
                yield text
            continue
        held += piece
        if block := _BLOCK.match(held):
            decided, text = True, held[block.end() :]
            started = bool(text)
            if text:
                yield text
        elif not (opened or _may_open(held)):
            decided = started = True
            yield held
    if not decided and held:
        yield held


def _may_open(text: str) -> bool:
    """Return whether an answer that begins with this text may begin with a block of reasoning."""
    begun = text.lstrip()
    tags = [*(f"<{tag}>" for tag in _TAGS), *(opening for opening, _ in _OTHER_TAGS), _HEAD]
    return not begun or any(begun.startswith(tag) or tag.startswith(begun) for tag in tags)
