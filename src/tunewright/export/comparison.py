"""Comparison of an artifact with the evaluated model: prompts token by token, distributions by top-1 and KL."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tunewright.export.target import Runner
from tunewright.models.chat_template import IGNORED, encode, encode_prompt
from tunewright.records import Message, Record

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase


TEXTS = (
    "Who had the lower risk?",
    "In 2024, 17 of 426 patients (3.9%) did; 'twas  odd\u2014wasn't it?",
    "First line.\n\n- a list\n\t- tabbed\nJosé naïvely paid €5 for 東京 🦙 ñandú",
    "def f(x):\n        return x ** 2  # <b>bold</b>",
    'We\'ll see: www.example.org/a_b?c=1&d=2 ... "quoted"',
)


def short_conversations() -> list[tuple[Message, ...]]:
    """Return 25 fixed conversations that end with a user's turn, with and without a system turn."""
    result = []
    for number, text in enumerate(TEXTS):
        others = [TEXTS[(number + step) % len(TEXTS)] for step in (1, 2, 3)]
        turns = (_turn("user", text), _turn("assistant", others[0]), _turn("user", others[1]))
        system = _turn("system", others[2])
        result += [turns[:1], (system, *turns[:1]), turns, (system, *turns)]
        result.append((*turns, _turn("assistant", others[2]), _turn("user", text)))
    return result


def _turn(role: str, content: str) -> Message:
    return Message.model_validate({"role": role, "content": content})


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


def _turns(*contents: str, system: str = "") -> tuple[Message, ...]:
    turns = [Message(role="assistant" if n % 2 else "user", content=content) for n, content in enumerate(contents)]
    return (Message(role="system", content=system), *turns) if system else tuple(turns)


def _framed(frames: Sequence[str]) -> Callable[[random.Random], str]:
    return lambda draw: draw.choice(frames).format(draw.choice(_SENTENCES))


def _some_of(texts: Sequence[str]) -> Callable[[random.Random], str]:
    return lambda draw: " ".join(draw.sample(texts, draw.randint(1, 3)))


def _control(draw: random.Random) -> str:
    return f"{draw.choice(_SENTENCES)} {draw.choice(_CONTROL)} {draw.choice(_SENTENCES)}"


def _long(draw: random.Random) -> str:
    return " ".join(draw.choice((*_SENTENCES, *_UNICODE)) for _ in range(draw.randint(60, 160)))


def conversations() -> list[tuple[str, tuple[Message, ...]]]:
    """Return 200 fixed (kind, conversation) pairs, each to be continued by the assistant."""
    draw = random.Random(20)
    kinds = list(_KINDS)
    pairs = []
    for number in range(NUM_CONVERSATIONS):
        kind = kinds[number % len(kinds)]
        make_question = _KINDS[kind]
        num_questions = draw.choice((1, 1, 2, 3)) if kind != LONG else 1
        contents = [part for _ in range(num_questions) for part in (make_question(draw), draw.choice(_ANSWERS))][:-1]
        system = draw.choice(_SYSTEM) if draw.random() < 0.5 else ""
        pairs.append((kind, _turns(*contents, system=system)))
    return pairs


_KINDS: Mapping[str, Callable[[random.Random], str]] = {
    "plain": _some_of(_SENTENCES),
    "unicode": _some_of(_UNICODE),
    "emoji": _some_of(_EMOJI),
    "white space at the ends": _framed(_EDGES),
    "text like control tokens": _control,
    "code": _framed(_CODE),
    "right to left": _some_of(_RIGHT_TO_LEFT),
    LONG: _long,
}


_SHOWN = 40  # characters of a token or a conversation


class PromptParity(Record):
    """How many prompts are the same tokens in training, in chat and in the artifact; the first difference in words.

    ``limited`` more are the same only once the text avoids ``limits``: what the program cannot do with any artifact.
    """

    conversations: int
    identical: int
    limited: int = 0
    limits: tuple[str, ...] = ()
    first: str = ""


class Closeness(Record):
    """How close two models' next-token distributions are; KL(evaluated ‖ artifact) in nats.

    ``same`` of ``positions`` have the same likeliest token. ``ties`` have another token that the evaluated model gives
    the same probability, within ``tie_nats``: rounding decides between the two.
    """

    positions: int
    same: int
    ties: int
    tie_nats: float
    mean_kl: float
    max_kl: float
    first: str = ""

    @property
    def agreement(self) -> float:
        """The share of positions with the same likeliest token, ties allowed."""
        return (self.same + self.ties) / self.positions


def _difference(tokenizer: PreTrainedTokenizerBase, name: str, expected: Sequence[int], actual: Sequence[int]) -> str:
    """Return the first difference of two token sequences, both tokens decoded; empty where they are the same."""
    if list(expected) == list(actual):
        return ""
    shared = min(len(expected), len(actual))
    index = next((n for n in range(shared) if expected[n] != actual[n]), shared)

    def token(ids: Sequence[int]) -> str:
        return f"{tokenizer.decode([ids[index]])[:_SHOWN]!r} ({ids[index]})" if index < len(ids) else "the end"

    return f"at token {index} {name} has {token(actual)}, chat has {token(expected)}"


def _training_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Return the tokens before a trained answer."""
    encoded = encode(tokenizer, (*messages, Message(role="assistant", content="Yes.")), last_turn_only=True)
    return encoded.input_ids[: next(n for n, label in enumerate(encoded.labels) if label != IGNORED)]


def compare_prompts(tokenizer: PreTrainedTokenizerBase, runner: Runner) -> PromptParity:
    """Compare the prompts of the fixed conversations in training, in chat and in the artifact."""
    identical, limited, first = 0, 0, ""
    pairs = conversations()
    for number, (kind, messages) in enumerate(pairs):
        fault = _prompt_fault(tokenizer, runner, messages)
        if not fault:
            identical += 1
        elif runner.limits and not _prompt_fault(tokenizer, runner, _avoiding(runner, messages)):
            limited += 1
        elif not first:
            shown = messages[-1].content[:_SHOWN]
            first = f"conversation {number} ({kind}, ending in {shown!r}): {fault}"
    limits = tuple(limit.text for limit in runner.limits) if limited else ()
    return PromptParity(conversations=len(pairs), identical=identical, limited=limited, limits=limits, first=first)


def _prompt_fault(tokenizer: PreTrainedTokenizerBase, runner: Runner, messages: Sequence[Message]) -> str:
    """Return the first difference of a prompt in training, or in the artifact, from chat's; empty if there is none."""
    chat = encode_prompt(tokenizer, messages)
    fault = _difference(tokenizer, "training", chat, _training_ids(tokenizer, messages))
    return fault or _difference(tokenizer, runner.name, chat, runner.prompt_ids(messages))


def _avoiding(runner: Runner, messages: Sequence[Message]) -> list[Message]:
    """Return the conversation rewritten to avoid what the program cannot do."""
    avoiding = list(messages)
    for limit in runner.limits:
        avoiding = [message.model_copy(update={"content": limit.avoid(message.content)}) for message in avoiding]
    return avoiding


def _choices(tokenizer: PreTrainedTokenizerBase, log_probs: np.ndarray, expected: int, actual: int) -> str:
    """Return both models' likeliest token, each with its probability in the evaluated model."""
    import numpy as np

    likely = [f"{tokenizer.decode([token])!r} ({np.exp(log_probs[token]):.1%})" for token in (expected, actual)]
    return f"the evaluated model says {likely[0]}, the artifact {likely[1]}"


def compare_distributions(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    evaluated: np.ndarray,
    exported: Sequence[np.ndarray],
    tie_nats: float,
) -> Closeness:
    """Compare next-token distributions.

    Args:
        tokenizer: to show the tokens of the first disagreement.
        prompts: the tokens before each position.
        evaluated: log-probabilities of the evaluated model: [position, vocabulary].
        exported: those of the artifact for each position: [vocabulary], which may be padded.
        tie_nats: the difference of log-probability up to which two tokens are tied.
    """
    import numpy as np

    same = ties = 0
    first, divergences = "", []
    for number, (first_row, second_row) in enumerate(zip(evaluated, exported, strict=True)):
        size = min(len(first_row), len(second_row))
        p, q = first_row[:size].astype(np.float64), np.asarray(second_row[:size], dtype=np.float64)
        divergences.append(max(0.0, float((np.exp(p) * (p - np.maximum(q, -100.0))).sum())))
        expected, actual = int(p.argmax()), int(q.argmax())
        same += expected == actual
        if expected != actual:
            tied = p[expected] - p[actual] <= tie_nats
            ties += int(tied)
            if not tied and not first:
                context = tokenizer.decode(list(prompts[number])[-12:])
                first = f"position {number}, after {context!r}: {_choices(tokenizer, p, expected, actual)}"
    return Closeness(
        positions=len(divergences),
        same=same,
        ties=ties,
        tie_nats=tie_nats,
        mean_kl=float(np.mean(divergences)),
        max_kl=max(divergences),
        first=first,
    )
