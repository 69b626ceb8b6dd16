"""General instructions by Magpie: an aligned model completes its bare user header to a user's turn, then answers it.

Xu et al., "Magpie: Alignment Data Synthesis from Scratch" (arXiv 2406.08464). These samples preserve the student's
general ability; they do not depend on the documents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunewright.errors import RecipeError
from tunewright.recipe import Recipe
from tunewright.records import GENERAL, Message, Sample, digest
from tunewright.settings import EMBEDDED, LOCAL
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
        RecipeError: the chat template of a teacher of this name is not known.
    """
    teacher = recipe.writer
    if EMBEDDED in (teacher.url, teacher.model):
        return _EMBEDDED_HEADER, (_EMBEDDED_END,)
    for pattern, begin, header, end in _TEMPLATES:
        if re.search(pattern, teacher.model.lower()):
            return (begin if teacher.url == LOCAL else "") + header, (end,)
    raise RecipeError(
        "general samples need a teacher whose chat template is known",
        f"the user's turn is sampled from the bare header, and none is known for {teacher.model!r}",
        f"name a model of one of these kinds in teacher.model: {', '.join(kind for kind, *_ in _TEMPLATES)}; "
        "or set synthesis.general_samples = 0",
    )


# By the kind in the model's name: what begins a text (a server adds it itself), the user's header, the turn's end.
_TEMPLATES = (
    ("llama-3", "<|begin_of_text|>", "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    ("qwen", "", "<|im_start|>user\n", "<|im_end|>"),
    ("mistral|mixtral", "<s>", "[INST]", "[/INST]"),
    ("zephyr", "<s>", "<|user|>\n", "</s>"),
    ("gemma", "<bos>", "<start_of_turn>user\n", "<end_of_turn>"),
)
