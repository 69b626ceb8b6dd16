"""General instructions by Magpie: an aligned model completes its bare user header to a user's turn, then answers it.

Xu et al., "Magpie: Alignment Data Synthesis from Scratch" (arXiv 2406.08464). These samples preserve the student's
general ability; they do not depend on the documents.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.errors import RecipeError
from tunewright.recipe import Recipe
from tunewright.records import GENERAL, Message, Sample, digest
from tunewright.settings import EMBEDDED
from tunewright.synthesis.context import TaskContext, TaskResult, reply_fault, sample_id
from tunewright.teacher.protocol import Request
from tunewright.text.normalization import words

_QUERY_TOKENS, _ANSWER_TOKENS = 128, 512
_QUERY_TEMPERATURE = 1.0  # queries are sampled; answers are greedy
_MIN_QUERY_WORDS = 4
# SmolLM2's chat template, with the system turn that it adds by default.
_EMBEDDED_HEADER = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n"
)
_EMBEDDED_END = "<|im_end|>"


def general(context: TaskContext, answered: Sequence[Sample]) -> TaskResult:
    """Sample ``synthesis.general_samples`` user turns from the bare header, then ask for their answers.

    Each query has its own seed. A query that is cut, too short or repeated is rejected, and so is a cut answer.

    Raises:
        RecipeError: the teacher's user header is unknown.
    """
    del answered
    header, stop = user_header(context.recipe)
    number = context.recipe.synthesis.general_samples
    result = TaskResult(GENERAL, number)
    seeds = range(context.recipe.seed, context.recipe.seed + number)
    requests = [Request((), _QUERY_TOKENS, _QUERY_TEMPERATURE, seed, raw=header, stop=stop) for seed in seeds]
    queries: dict[str, int] = {}  # in the order of their replies
    for index, reply in enumerate(context.teacher.ask_all(requests, "writing instructions")):
        text = reply.text.strip() if reply else ""
        fault = reply_fault(reply) or ("instruction is a fragment" if len(words(text)) < _MIN_QUERY_WORDS else None)
        fault = fault or ("instruction written twice" if text in queries else None)
        if fault:
            result.reject(digest(GENERAL, index, text), fault, text)
        else:
            queries[text] = index

    requests = [
        context.request((Message(role="user", content=text),), _ANSWER_TOKENS, temperature=0.0) for text in queries
    ]
    replies = context.teacher.ask_all(requests, "answering instructions")
    for query, reply in zip(queries, replies, strict=True):
        fault = reply_fault(reply)
        if fault or reply is None:
            result.reject(digest(GENERAL, query), fault or "", query)
            continue
        answer = reply.text.strip()
        turns = (Message(role="user", content=query), Message(role="assistant", content=answer))
        result.samples.append(Sample(id=sample_id(GENERAL, "", query, answer), task=GENERAL, messages=turns))
    return result


def user_header(recipe: Recipe) -> tuple[str, tuple[str, ...]]:
    """Return the exact text before a user's turn, and the texts that end the turn.

    Raises:
        RecipeError: the teacher is not the embedded one, and the recipe sets no header.
    """
    given = recipe.teacher.user_header
    if given:
        return given, tuple(filter(None, [recipe.teacher.turn_end]))
    if recipe.teacher.url == EMBEDDED:
        return _EMBEDDED_HEADER, (_EMBEDDED_END,)
    raise RecipeError(
        "general samples need the teacher's user header",
        "the user's turn is sampled from the bare header, and a chat server does not reveal its template",
        "set teacher.user_header to the exact text before a user's first word, "
        'such as "<|im_start|>user\\n", and teacher.turn_end to the text that ends the turn',
    )
