"""Chat templates: prompts and loss masks, the same for training samples, exam questions and chats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import console
from tunewright.errors import ModelError, cause_of
from tunewright.models.capped_programs import ProgramError, RefusedError, rendered
from tunewright.models.model_files import reading_model
from tunewright.records import Chunk, Message, Question
from tunewright.text.reasoning import (
    CLOSING,
    OPENING,
    TAG_TOKENS,
    ends_with_opening_tag,
    split_reasoning,
    strip_reasoning,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100  # the label without loss, as in torch's cross_entropy
_TAG_TOKENS = 16  # at the end of a prompt: more than an opening tag has

TEMPLATE_VARIABLES = {
    "enable_thinking": False,  # Qwen3 and others: no chain of thought before an answer
    "thinking": False,  # the same of Granite and DeepSeek
    "date_string": "26 Jul 2024",  # Llama 3.x prints the date: a fixed date, or each day would train another prompt
}
# Set by the template itself where reasoning is kept, so that chat, exam, server and every export do the same.
_THINKS = "{% set enable_thinking = true %}{% set thinking = true %}{{ '' }}"
# For base models without a template: role lines, and the end-of-sequence token after each turn, so that no new token
# needs training.
DEFAULT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Encoded:
    """A tokenized conversation.

    Attributes:
        input_ids: [tokens].
        labels: [tokens]; equal to ``input_ids`` where the loss is taken, else IGNORED.
        ends_supervised: whether the loss is taken on each turn's end token.
    """

    input_ids: list[int]
    labels: list[int]
    ends_supervised: bool

    @property
    def num_supervised(self) -> int:
        """Number of tokens that the loss is taken on."""
        return sum(label != IGNORED for label in self.labels)


_SOME_TEXT = "the 1"


def load_tokenizer(folder: Path, added_tokens: Sequence[str] = (), thinks: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer; add the tokens, and DEFAULT_TEMPLATE if it has no chat template.

    Args:
        folder: of the model.
        added_tokens: new tokens.
        thinks: whether its prompts ask for reasoning before an answer, where the template has a switch for it.

    Raises:
        ModelError: it cannot be loaded, or has no character offsets (a slow tokenizer).
    """
    from transformers import AddedToken, AutoTokenizer

    with reading_model("tokenizer", folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not tokenizer(_SOME_TEXT, add_special_tokens=False)["input_ids"]:
            raise ValueError("it has no vocabulary: tokenizer.json is missing")
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer in {folder} has no character offsets",
            "the loss mask needs them, and only fast tokenizers have them",
            "use a version of the model that ships tokenizer.json",
        )
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = _plain_template(folder, tokenizer.chat_template)
    if not tokenizer.chat_template:
        if not tokenizer.eos_token:
            raise ModelError(
                f"the tokenizer in {folder} has neither a chat template nor an end token",
                "nothing would end a turn",
                "name the end token in tokenizer_config.json (eos_token), as the model it was made from does",
            )
        console.warning("the tokenizer has no chat template; using <|role|> lines with the end token after each turn")
        tokenizer.chat_template = DEFAULT_TEMPLATE
    if thinks and re.search(r"\b(enable_)?thinking\b", str(tokenizer.chat_template)):
        tokenizer.chat_template = _THINKS + str(tokenizer.chat_template)
    # Not normalized: SentencePiece's normalization would match a token only behind a space.
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in added_tokens])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _plain_template(folder: Path, templates: Mapping[str, str]) -> str:
    """Return the template for a plain chat of several that have names: "default", or the text that all of them have.

    Raises:
        ModelError: none of them is for plain chats.
    """
    texts = list(dict.fromkeys(templates.values()))
    if "default" in templates or len(texts) == 1:
        return templates.get("default", texts[0])
    raise ModelError(
        f"the tokenizer in {folder} has {len(texts)} chat templates, and none is named default",
        f"they are named {', '.join(sorted(templates))}",
        f"write the one for plain chats to {folder / 'chat_template.jinja'}",
    )


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    """Return the conversation as the template writes it.

    If the template refuses a system turn, its text goes before that of the first user turn.

    Raises:
        ModelError: the template is damaged, or refuses the conversation.
    """
    return _rendered(tokenizer, [message.as_turn() for message in _as_history(messages)], add_generation_prompt)


def _as_history(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return a conversation without the reasoning of earlier turns, as most templates write it."""
    return tuple(
        message.model_copy(update={"content": strip_reasoning(message.content)})
        if message.role == "assistant" and number < len(messages) - 1
        else message
        for number, message in enumerate(messages)
    )


def _rendered(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, Any]], add_generation_prompt: bool
) -> str:
    try:
        try:
            return apply(tokenizer, turns, add_generation_prompt, **TEMPLATE_VARIABLES)
        except RefusedError:
            if len(turns) < 2 or turns[0]["role"] != "system":
                raise
        merged = {"role": turns[1]["role"], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
        return apply(tokenizer, [merged, *turns[2:]], add_generation_prompt, **TEMPLATE_VARIABLES)
    except RefusedError as error:
        raise _cannot_write(tokenizer, turns, error) from error


def apply(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    **variables: Any,
) -> str:
    """Return what the tokenizer's own ``apply_chat_template`` would, but within limits: a template is a program.

    Raises:
        RefusedError: the template refuses the turns.
        ModelError: it is damaged, or exceeds a limit of time, memory or length.
    """
    names: dict[str, Any] = {
        **tokenizer.special_tokens_map,
        **variables,
        "add_generation_prompt": add_generation_prompt,
    }
    try:
        return rendered(str(tokenizer.get_chat_template()), turns, names)
    except RefusedError:
        raise
    except ProgramError as error:
        raise _cannot_write(tokenizer, turns, error) from error


def _cannot_write(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, Any]], error: ProgramError
) -> ModelError:
    return ModelError(
        f"the chat template in {tokenizer.name_or_path} cannot write a conversation of {len(turns)} turns",
        cause_of(error),
        "check chat_template.jinja there, or chat_template in tokenizer_config.json",
    )


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Return the token ids [tokens] of a prompt that ends where the assistant's answer begins."""
    text = render(tokenizer, messages, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def opens_reasoning(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> bool:
    """Return whether a prompt ends with the opening tag of a block of reasoning, so that the answer starts inside."""
    return ends_with_opening_tag(tokenizer.decode(list(prompt_ids[-_TAG_TOKENS:])))


def answer_text(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> str:
    """Return an answer's text, with its reasoning in tags: those that are special tokens, and that the prompt opens."""
    text = visible_text(tokenizer, token_ids).strip()
    return OPENING + text if opens_reasoning(tokenizer, prompt_ids) else text


def visible_text(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Return the text of tokens without special ones, but with the tags of reasoning."""
    tags = _tag_ids(tokenizer, len(tokenizer))
    if not tags:
        return str(tokenizer.decode(list(token_ids), skip_special_tokens=True))
    hidden = special_ids(tokenizer) - tags
    return str(tokenizer.decode([number for number in token_ids if number not in hidden], skip_special_tokens=False))


@lru_cache(maxsize=8)
def _tag_ids(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> frozenset[int]:
    """Return the ids of tags of reasoning that are special tokens."""
    known = special_ids(tokenizer)
    return frozenset(n for n, token in tokenizer.added_tokens_decoder.items() if token.content in TAG_TOKENS) & known


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of the control tokens, which no plain text may produce."""
    return _special_ids(tokenizer, len(tokenizer))


@lru_cache(maxsize=8)
def _special_ids(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> frozenset[int]:
    """Cached per tokenizer and size, which grows with added tokens: some have thousands, needed for every sample."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))


def _answer_start(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], number: int, text: str, prompting: bool
) -> int:
    """Return where turn ``number`` begins in the rendered text: where another answer would change the text."""
    content = messages[number].content.strip()
    other = Message(role="assistant", content="y" if content.startswith("x") else "x")
    changed = render(tokenizer, (*messages[:number], other, *messages[number + 1 :]), prompting)
    start = len(commonprefix([text, changed]))
    start += len(text[start:]) - len(text[start:].lstrip())
    if not text.startswith(content, start):
        raise ModelError(
            f"the chat template in {tokenizer.name_or_path} changes an assistant turn's text",
            f"{content[:80]!r} does not occur at its position in the rendered conversation",
            "fix the template: the loss mask would be wrong",
        )
    return start


def _spans(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], text: str, prompting: bool = False
) -> list[tuple[int, int]]:
    """Return the span of each assistant turn in the rendered text, from the end of its prompt to its last word."""
    spans = []
    for number, message in enumerate(messages):
        if message.role == "assistant":
            prompt = render(tokenizer, messages[:number], add_generation_prompt=True)
            answer = _answer_start(tokenizer, messages, number, text, prompting)
            # Some templates rewrite earlier turns once later turns exist: then the span begins with the turn's text.
            start = len(prompt) if text.startswith(prompt) else answer
            spans.append((start, answer + len(message.content.strip())))
    return spans


def _conversation(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    """Return the rendered conversation and the spans of its assistant turns.

    The last answer follows the very prompt that generation uses, even if the template writes an answered conversation
    differently: Mistral 0.3 leaves the system text out of it, some Qwen models the empty thought.
    """
    messages = _as_history(messages)
    if messages[-1].role != "assistant":
        text = render(tokenizer, messages)
        return text, _spans(tokenizer, messages, text)
    prompt = render(tokenizer, messages[:-1], add_generation_prompt=True)
    thought, answer = split_reasoning(messages[-1].content.strip())
    if ends_with_opening_tag(prompt):
        return _reasoned(tokenizer, messages, prompt, thought, answer)
    if thought and not render(tokenizer, messages).startswith(prompt + messages[-1].content.strip()):
        return _reasoned(tokenizer, messages, prompt, thought, answer)
    try:
        return _answered(tokenizer, messages, prompt)
    except ModelError:  # a template that reads reasoning apart from the answer
        if answer == messages[-1].content.strip():
            raise
        if not thought:  # an empty block, as Qwen3 writes it where it does not reason: its template adds it again
            return _answered(tokenizer, (*messages[:-1], messages[-1].model_copy(update={"content": answer})), prompt)
        return _reasoned(tokenizer, messages, prompt, thought, answer)


def _answered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt: str
) -> tuple[str, list[tuple[int, int]]]:
    """Return a conversation as the template writes its answer, behind the prompt of generation."""
    text = render(tokenizer, messages)
    answer = _answer_start(tokenizer, messages, len(messages) - 1, text, False)
    if not text.startswith(prompt):
        space = text[len(text[:answer].rstrip()) : answer]
        prompt_and_space = prompt if prompt.endswith(space) else prompt + space
        text, answer = prompt_and_space + text[answer:], len(prompt_and_space)
    last = (len(prompt), answer + len(messages[-1].content.strip()))
    return text, [*_spans(tokenizer, messages[:-1], prompt, True), last]


def _reasoned(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt: str, thought: str, answer: str
) -> tuple[str, list[tuple[int, int]]]:
    """Return a conversation whose answer follows its reasoning, or an empty one where the prompt opens it.

    Templates write reasoning in their own form, and some leave it out of an answered conversation: then it is written
    between the prompt and the answer.
    """
    bare = (*messages[:-1], messages[-1].model_copy(update={"content": answer}))
    text, spans = _answered(tokenizer, bare, prompt)
    rest = text[spans[-1][1] - len(answer.strip()) :]
    block = _reasoning_by_template(tokenizer, bare, prompt, thought) if thought else CLOSING
    if not block:
        block = ("" if ends_with_opening_tag(prompt) else OPENING) + thought + CLOSING
    return prompt + block + rest, [*spans[:-1], (len(prompt), len(prompt) + len(block) + len(answer.strip()))]


def _reasoning_by_template(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt: str, thought: str
) -> str:
    """Return what the template writes between prompt and answer for this reasoning; empty where it writes none."""
    turns = [message.as_turn() for message in messages]
    both = [
        _rendered(tokenizer, [*turns[:-1], {**turns[-1], **fields, "content": content}], False)
        for fields in ({"reasoning_content": thought, "thinking": thought},)
        for content in (turns[-1]["content"], "y" if str(turns[-1]["content"]).startswith("x") else "x")
    ]
    text, start = both[0], len(commonprefix(both))
    start += len(text[start:]) - len(text[start:].lstrip())
    return text[len(prompt) : start] if text.startswith(prompt) and thought in text[len(prompt) : start] else ""


def encode(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], last_turn_only: bool = False) -> Encoded:
    """Tokenize a conversation, with the loss on each assistant turn (but ``loss=False``) and the token that ends it.

    The mask comes from the turns' characters, not from token patterns, so it holds for every template.
    """
    text, spans = _conversation(tokenizer, messages)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(encoding["input_ids"]), list(encoding["offset_mapping"])
    special = special_ids(tokenizer)
    labels = [IGNORED] * len(ids)
    ended = []
    trained = [message.loss for message in messages if message.role == "assistant"]
    for start, end in spans[-1:] if last_turn_only else compress(spans, trained):
        inside = [n for n, (low, high) in enumerate(offsets) if high > start and low < end and high > low]
        after = inside[-1] + 1
        stop = _end_token(ids, offsets, after, special, text)
        for position in range(inside[0], after if stop is None else stop + 1):
            labels[position] = ids[position]
        ended.append(stop is not None)
    return Encoded(ids, labels, bool(ended) and all(ended))


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], num_prompt_tokens: int, text: str, with_end: bool
) -> list[int]:
    """Return the tokens of a text as the answer to a prompt of so many tokens; ``with_end``: and of the turn's end."""
    conversation = encode(tokenizer, (*prompt, Message(role="assistant", content=text)))
    ids = [label for label in conversation.labels[num_prompt_tokens:] if label != IGNORED]
    return ids[:-1] if conversation.ends_supervised and not with_end else ids


def encode_turns(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[Encoded, ...]:
    """Tokenize a conversation as one sequence, or as one for each trained turn.

    Reasoning is left out of earlier turns. Where one of them reasons, each turn is trained behind the prompt that
    generation gives it.
    """
    answers = [number for number, message in enumerate(messages) if message.role == "assistant" and message.loss]
    if not any(split_reasoning(messages[number].content)[0] for number in answers[:-1]):
        return (encode(tokenizer, messages),)
    return tuple(encode(tokenizer, messages[: number + 1], last_turn_only=True) for number in answers)


def _end_token(
    ids: list[int], offsets: Sequence[tuple[int, int]], after: int, special: frozenset[int], text: str
) -> int | None:
    """Return the position of the special token that ends the turn before ``after``, behind white space if any."""
    for position in range(after, len(ids)):
        if ids[position] in special:
            return position
        low, high = offsets[position]
        if text[low:high].strip():
            return None
    return None


def end_ids(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[int]:
    """Return the ids of the tokens that end an answer: end-of-sequence tokens, and the template's after a turn."""
    config = getattr(model, "generation_config", None)
    listed = getattr(config, "eos_token_id", None)
    ids = set(listed if isinstance(listed, list) else [listed]) | {tokenizer.eos_token_id}
    probe = encode(tokenizer, (Message(role="user", content="a"), Message(role="assistant", content="b")))
    ids |= {label for label in probe.labels[-4:] if label in special_ids(tokenizer)}
    return sorted(number for number in ids if number is not None)


def passage_text(chunk: Chunk) -> str:
    """Return a chunk as a passage that reads on its own: its document's title, then its text."""
    return f"{chunk.title}\n{chunk.text}" if chunk.title else chunk.text


def question_prompt(question: str, passages: Sequence[str] = ()) -> str:
    """Return the text of a user turn: the numbered passages, if any, then the question."""
    if not passages:
        return question
    numbered = "\n\n".join(f"[{number}] {passage}" for number, passage in enumerate(passages, 1))
    return f"Passages:\n{numbered}\n\nQuestion: {question}"


def chat(
    system_prompt: str,
    question: str,
    passages: Sequence[str] = (),
    answer: str | None = None,
    shots: Iterable[Message] = (),
) -> tuple[Message, ...]:
    """Return a conversation: system prompt, examples, the question, and its answer if there is one.

    Args:
        system_prompt: the first message; left out when empty.
        question: the last user turn.
        passages: texts shown with the question.
        answer: the assistant's turn; None ends the conversation with the question.
        shots: turns of worked examples (user and assistant) before the question.
    """
    turns = [Message(role="system", content=system_prompt)] if system_prompt else []
    turns += [*shots, Message(role="user", content=question_prompt(question, passages))]
    if answer is not None:
        turns.append(Message(role="assistant", content=answer))
    return tuple(turns)


def exam_prompt(
    system_prompt: str, question: Question, retrieved: Sequence[str] = (), shots: Sequence[Message] = ()
) -> tuple[Message, ...]:
    """Return an arm's prompt for a question; base and tuned get neither retrieved passages nor shots.

    A question with a passage of its own gets that passage alone, whatever was retrieved.
    """
    passages = retrieved if question.passage is None else (question.passage,)
    return chat(system_prompt, question.question, passages=passages, shots=shots)
