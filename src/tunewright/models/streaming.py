"""Greedy answers token by token, told in whole characters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tunewright.models.generate import Decoder

MAX_NEW_TOKENS = 512  # of an answer in a chat or to a program, where nobody says otherwise


def whole_characters(tokenizer: Any, tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text of a growing answer piece by piece, never half a character."""
    told = ""
    ids: list[int] = []
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if not text.endswith("\ufffd"):  # the middle of a multi-byte character
            yield text[len(told) :]
            told = text


def stream(
    model: Any, tokenizer: Any, prompt_ids: Sequence[int], max_new_tokens: int, end_ids: Sequence[int]
) -> Iterator[str]:
    """Yield a greedy answer piece by piece, in whole characters."""
    return whole_characters(tokenizer, greedy(model, prompt_ids, max_new_tokens, end_ids, tokenizer.pad_token_id))


def argmax(logits: Any, ids: Sequence[int]) -> int:
    """Return the likeliest token, whatever came before."""
    return int(logits.argmax(-1)[0])


def greedy(
    model: Any, prompt_ids: Sequence[int], max_new_tokens: int, end_ids: Sequence[int], pad_id: int
) -> Iterator[int]:
    """Yield the tokens of a greedy answer."""
    return continued(model, prompt_ids, max_new_tokens, end_ids, pad_id, argmax)


def continued(
    model: Any,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    end_ids: Sequence[int],
    pad_id: int,
    choose: Callable[[Any, Sequence[int]], int],
) -> Iterator[int]:
    """Yield the tokens of an answer; between two of them torch is as it was, so that answers may alternate.

    Args:
        model: a causal language model in evaluation mode.
        prompt_ids: the prompt.
        max_new_tokens: the answer is cut there.
        end_ids: tokens that end it, and are not part of it.
        pad_id: the tokenizer's.
        choose: (logits [1, vocabulary], the answer's tokens so far) → the next token.
    """
    import torch

    with torch.inference_mode():
        decoder = Decoder(model, [prompt_ids], pad_id)
    ids: list[int] = []
    for position in range(max_new_tokens):
        with torch.inference_mode():
            token = choose(decoder.logits, ids)
        if token in end_ids:
            return
        ids.append(token)
        yield token
        if position < max_new_tokens - 1:
            with torch.inference_mode():
                decoder.step(torch.tensor([token], device=model.device))
