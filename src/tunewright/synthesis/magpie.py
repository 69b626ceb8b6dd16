"""General instruction data in the Magpie way: an aligned model, given only its user header, writes the user's turn.

Xu et al., "Magpie: Alignment Data Synthesis from Scratch" (arXiv 2406.08464). It keeps a student's general ability
beside the documents; it knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunewright.errors import RecipeError
from tunewright.recipe import Recipe
from tunewright.records import GENERAL, Message, Sample, digest
from tunewright.settings import EMBEDDED
from tunewright.synthesis.context import Work, Written, reply_fault, sample_id
from tunewright.teacher.protocol import Request
from tunewright.text.normalization import words

_QUERY_TOKENS, _ANSWER_TOKENS = 128, 512
_HOT = 1.0  # queries are sampled, answers take the likeliest words
_FEWEST_WORDS = 4
# SmolLM2's own template, with the system turn that it adds by default.
_EMBEDDED_HEADER = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n"
)
_EMBEDDED_END = "<|im_end|>"


def general(work: Work, answered: Sequence[Sample]) -> Written:
    """Sample ``synthesis.general_samples`` user turns from the bare header, then ask for their answers.

    Each query has a seed of its own. A query that is cut, a fragment, or repeated is rejected; so is a cut answer.

    Raises:
        RecipeError: the teacher's header is not known.
    """
    del answered
    header, stop = user_header(work.recipe)
    number = work.recipe.synthesis.general_samples
    written = Written(GENERAL, number)
    asked = work.teacher.ask_all(
        [Request((), _QUERY_TOKENS, _HOT, work.recipe.seed + n, raw=header, stop=stop) for n in range(number)],
        "writing instructions",
    )
    queries: dict[str, int] = {}
    for place, reply in enumerate(asked):
        text = reply.text.strip() if reply else ""
        fault = reply_fault(reply) or ("instruction is a fragment" if len(words(text)) < _FEWEST_WORDS else None)
        fault = fault or ("instruction written twice" if text in queries else None)
        if fault:
            written.reject(digest(GENERAL, place, text), fault, text)
        else:
            queries[text] = place
    requests = [work.request((Message(role="user", content=text),), _ANSWER_TOKENS) for text in queries]
    requests = [replace(request, temperature=0.0) for request in requests]
    replies = work.teacher.ask_all(requests, "answering instructions")
    for query, reply in zip(queries, replies, strict=True):
        fault = reply_fault(reply)
        if fault or reply is None:
            written.reject(digest(GENERAL, query), fault or "", query)
            continue
        answer = reply.text.strip()
        turns = (Message(role="user", content=query), Message(role="assistant", content=answer))
        written.samples.append(Sample(id=sample_id(GENERAL, "", query, answer), task=GENERAL, messages=turns))
    return written


def user_header(recipe: Recipe) -> tuple[str, tuple[str, ...]]:
    """Return the exact text up to where a user's turn begins, and what ends the turn.

    Raises:
        RecipeError: the teacher is not the embedded one, and the recipe does not give its header.
    """
    given = recipe.teacher.user_header
    if given:
        return given, tuple(filter(None, [recipe.teacher.turn_end]))
    if recipe.teacher.url == EMBEDDED:
        return _EMBEDDED_HEADER, (_EMBEDDED_END,)
    raise RecipeError(
        "general samples need the teacher's user header",
        "a chat server does not tell its template, and the user's turn is sampled from the bare header",
        "set teacher.user_header to all that stands before a user's first word, "
        'such as "<|im_start|>user\\n", and teacher.turn_end to what ends the turn',
    )
