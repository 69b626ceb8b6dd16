"""The form of a question to the student: one for training samples, exam prompts and chats alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os.path import commonprefix
from pathlib import Path
from typing import Any

from tunewright import console
from tunewright.errors import ModelError
from tunewright.records import Chunk, Message, Question

IGNORED = -100  # the label that no loss is taken on, as torch's cross_entropy has it

TEMPLATE_VARIABLES = {
    "enable_thinking": False,  # Qwen3 and others: answers without a chain of thought before them
    "date_string": "26 Jul 2024",  # Llama 3.x prints the day: a fixed one, or each day would train another prompt
}
# For base models that come without a template: role lines, and the end-of-sequence token after each turn, so
# that no new token needs training.
DEFAULT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Encoded:
    """A tokenized conversation; ``labels`` equal ``input_ids`` where the loss is taken, else IGNORED."""

    input_ids: list[int]
    labels: list[int]
    ends_supervised: bool

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss is taken on."""
        return sum(label != IGNORED for label in self.labels)


def load_tokenizer(folder: Path, added_tokens: Sequence[str] = ()) -> Any:
    """Load a tokenizer; give it the stated default template when it has none, and the added tokens.

    Raises:
        ModelError: it cannot be loaded, or gives no character offsets (a slow tokenizer).
    """
    from transformers import AddedToken, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"cannot load the tokenizer in {folder}", str(error).splitlines()[0], "download the model again"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer in {folder} has no character offsets",
            "the loss mask needs them, and only fast tokenizers have them",
            "use a version of the model that ships tokenizer.json",
        )
    if not tokenizer.chat_template:
        if not tokenizer.eos_token:
            raise ModelError(f"the tokenizer in {folder} has neither a chat template nor an end token")
        console.warning("the tokenizer has no chat template; using <|role|> lines with the end token after each turn")
        tokenizer.chat_template = DEFAULT_TEMPLATE
    # Not normalized: SentencePiece's normalization would let a token be found behind a space only.
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in added_tokens])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def render(tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    """Return the conversation as the template writes it.

    A template that refuses a system turn gets its text at the head of the first user turn.
    """
    from jinja2.exceptions import TemplateError

    turns = [message.model_dump() for message in messages]
    try:
        return _apply(tokenizer, turns, add_generation_prompt)
    except TemplateError:
        if len(turns) < 2 or turns[0]["role"] != "system":
            raise
        merged = {"role": turns[1]["role"], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
        return _apply(tokenizer, [merged, *turns[2:]], add_generation_prompt)


def _apply(tokenizer: Any, turns: list[dict[str, Any]], add_generation_prompt: bool) -> str:
    return str(
        tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt, **TEMPLATE_VARIABLES
        )
    )


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the token ids of a prompt that ends where the assistant's answer begins."""
    text = render(tokenizer, messages, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids of the control tokens: those that no text should turn into."""
    return _special_ids(tokenizer, len(tokenizer))


@lru_cache(maxsize=8)
def _special_ids(tokenizer: Any, num_tokens: int) -> frozenset[int]:
    """Per tokenizer and its size, which grows with added tokens: some list thousands, asked for with every sample."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))


def _answer_place(tokenizer: Any, messages: Sequence[Message], number: int, text: str, prompting: bool) -> int:
    """Return where turn ``number`` begins in the rendered text: where the text parts from that of another answer."""
    content = messages[number].content.strip()
    other = Message(role="assistant", content="y" if content.startswith("x") else "x")
    changed = render(tokenizer, (*messages[:number], other, *messages[number + 1 :]), prompting)
    place = len(commonprefix([text, changed]))
    place += len(text[place:]) - len(text[place:].lstrip())
    if not text.startswith(content, place):
        raise ModelError(
            "the chat template changes an assistant turn's text",
            f"{content[:80]!r} does not occur at its position in the rendered conversation",
            "fix the template: the loss mask would be wrong",
        )
    return place


def _spans(tokenizer: Any, messages: Sequence[Message], text: str, prompting: bool = False) -> list[tuple[int, int]]:
    """Return where the assistant turns stand in the rendered text: from the end of their prompt to their last word."""
    spans = []
    for number, message in enumerate(messages):
        if message.role == "assistant":
            prompt = render(tokenizer, messages[:number], add_generation_prompt=True)
            place = _answer_place(tokenizer, messages, number, text, prompting)
            # Some templates rewrite earlier turns once later ones exist: then the turn begins with its own text.
            start = len(prompt) if text.startswith(prompt) else place
            spans.append((start, place + len(message.content.strip())))
    return spans


def _conversation(tokenizer: Any, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    """Return the rendered conversation and where its assistant turns stand.

    A last answer stands behind the very prompt that asks for one, also where the template writes a conversation that
    has its answer otherwise: Mistral 0.3 then leaves the system text out, some of Qwen the empty thought.
    """
    text = render(tokenizer, messages)
    if messages[-1].role != "assistant":
        return text, _spans(tokenizer, messages, text)
    prompt = render(tokenizer, messages[:-1], add_generation_prompt=True)
    place = _answer_place(tokenizer, messages, len(messages) - 1, text, False)
    if not text.startswith(prompt):
        space = text[len(text[:place].rstrip()) : place]
        prompt_and_space = prompt if prompt.endswith(space) else prompt + space
        text, place = prompt_and_space + text[place:], len(prompt_and_space)
    last = (len(prompt), place + len(messages[-1].content.strip()))
    return text, [*_spans(tokenizer, messages[:-1], prompt, True), last]


def encode(tokenizer: Any, messages: Sequence[Message], last_turn_only: bool = False) -> Encoded:
    """Tokenize a conversation; the loss is taken on each assistant turn and on the token that ends it.

    The mask comes from the characters of the turns, not from token patterns, so it holds for every template.
    """
    text, spans = _conversation(tokenizer, messages)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(encoding["input_ids"]), list(encoding["offset_mapping"])
    special = special_ids(tokenizer)
    labels = [IGNORED] * len(ids)
    ended = []
    for start, end in spans[-1:] if last_turn_only else spans:
        inside = [place for place, (low, high) in enumerate(offsets) if high > start and low < end and high > low]
        after = inside[-1] + 1
        stop = _end_token(ids, offsets, after, special, text)
        for place in range(inside[0], after if stop is None else stop + 1):
            labels[place] = ids[place]
        ended.append(stop is not None)
    return Encoded(ids, labels, bool(ended) and all(ended))


def _end_token(
    ids: list[int], offsets: Sequence[tuple[int, int]], after: int, special: frozenset[int], text: str
) -> int | None:
    """Return the position of the special token that ends the turn before ``after``; white space may come first."""
    for position in range(after, len(ids)):
        if ids[position] in special:
            return position
        low, high = offsets[position]
        if text[low:high].strip():
            return None
    return None


def end_ids(tokenizer: Any, model: Any) -> list[int]:
    """Return the tokens that end an answer: the end-of-sequence ones and what the template puts after a turn."""
    config = getattr(model, "generation_config", None)
    listed = getattr(config, "eos_token_id", None)
    found = set(listed if isinstance(listed, list) else [listed]) | {tokenizer.eos_token_id}
    probe = encode(tokenizer, (Message(role="user", content="a"), Message(role="assistant", content="b")))
    found |= {label for label in probe.labels[-4:] if label in special_ids(tokenizer)}
    return sorted(number for number in found if number is not None)


def passage_text(chunk: Chunk) -> str:
    """Return a chunk as a passage that can be read on its own: its document's title, then its text."""
    return f"{chunk.title}\n{chunk.text}" if chunk.title else chunk.text


def question_prompt(question: str, passages: Sequence[str] = ()) -> str:
    """Return a user turn: the numbered passages, if any, then the question."""
    if not passages:
        return question
    shown = "\n\n".join(f"[{number}] {passage}" for number, passage in enumerate(passages, 1))
    return f"Passages:\n{shown}\n\nQuestion: {question}"


def chat(
    system_prompt: str,
    question: str,
    passages: Sequence[str] = (),
    answer: str | None = None,
    shots: Iterable[Message] = (),
) -> tuple[Message, ...]:
    """Return a conversation: system prompt, examples, the question, and its answer when there is one.

    Args:
        system_prompt: the first message; left out when empty.
        question: what is asked.
        passages: texts shown with the question.
        answer: the assistant's turn; None leaves the conversation to be continued.
        shots: turns of worked examples (user and assistant), shown before the question.
    """
    turns = [Message(role="system", content=system_prompt)] if system_prompt else []
    turns += [*shots, Message(role="user", content=question_prompt(question, passages))]
    if answer is not None:
        turns.append(Message(role="assistant", content=answer))
    return tuple(turns)


def exam_prompt(
    system_prompt: str, question: Question, found: Sequence[str] = (), shots: Sequence[Message] = ()
) -> tuple[Message, ...]:
    """Return the conversation that an arm is asked to continue; base and tuned get nothing found and no shots.

    A question that comes with its own passage is asked with that passage alone, whatever was found.
    """
    passages = found if question.passage is None else (question.passage,)
    return chat(system_prompt, question.question, passages=passages, shots=shots)
