"""A tokenizer as llama.cpp's vocabulary: tokens, merges or scores, and the rules that a GGUF file only names."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewright.errors import ModelError
from tunewright.export.comparison import short_conversations
from tunewright.export.gguf.architectures import refuse
from tunewright.export.tokenizer import portable_template, with_variables
from tunewright.models.chat_template import encode_prompt, end_ids, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TRAINING_MARK = re.compile(r"(\{%-?\s*)(end)?generation(\s*-?%\})")


def self_contained_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the portable template with its variables fixed, since llama.cpp sets some itself (chain of thought)."""
    template = portable_template(tokenizer)
    # transformers marks what is trained on with it; llama.cpp cannot parse it.
    plain = _TRAINING_MARK.sub(lambda m: f"{m[1]}{'endif' if m[2] else 'if true'}{m[3]}", template)
    return with_variables(template, "{{% set {name} = {value} %}}") + plain


SPACE = "\u2581"
# llama.cpp keeps Phi-3's white space after these, and removes it after the other special tokens.
_KEEPS_SPACE = ("<unk>", "<s>", "<|endoftext|>")


class ScoredVocabulary:
    """SentencePiece's tokenization as in llama.cpp: the neighbors that make the token of the highest score merge first.

    Written here, since no Python library exposes llama.cpp's own; an export is refused where the two differ.

    Args:
        tokens: the text of each token.
        scores: of each token.
        special: ids of the tokens that are cut out of the text first.
        space_prefix: whether a space is added to text at the beginning or after a special token.
        strips: whether white space after a special token belongs to it.
    """

    def __init__(
        self, tokens: Sequence[str], scores: Sequence[float], special: Sequence[int], space_prefix: bool, strips: bool
    ) -> None:
        self.tokens = tokens
        self.numbers = {text: number for number, text in enumerate(tokens)}
        self.scores = scores
        self.space_prefix = space_prefix
        self.strips = strips
        longest_first = sorted((tokens[number] for number in special), key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")" if special else "($^)")

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, with special tokens recognized."""
        ids: list[int] = []
        before: str | None = ""  # the special token that the next text follows
        for number, part in enumerate(self._special.split(text)):
            if number % 2:
                ids.append(self.numbers[part])
                before = part
                continue
            if self.strips and before and before not in _KEEPS_SPACE:
                part = part.lstrip()
            if part:
                prefix = SPACE if self.space_prefix and before is not None else ""
                ids += self._merge(prefix + part.replace(" ", SPACE))
                before = None
        return ids

    def _merge(self, text: str) -> Iterator[int]:
        parts = list(text)
        following = [*range(1, len(parts)), -1]
        previous = list(range(-1, len(parts) - 1))
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                number = self.numbers.get(parts[left] + parts[right])
                if number is not None:
                    heapq.heappush(queue, (-self.scores[number], left, right, parts[left] + parts[right]))

        for left in range(len(parts) - 1):
            offer(left, left + 1)
        while queue:
            _, left, right, merged = heapq.heappop(queue)
            if not parts[left] or not parts[right] or parts[left] + parts[right] != merged:
                continue
            parts[left], parts[right] = merged, ""
            following[left] = following[right]
            if following[right] >= 0:
                previous[following[right]] = left
            offer(previous[left], left)
            offer(left, following[left])
        for part in filter(None, parts):
            if part in self.numbers:
                yield self.numbers[part]
            else:
                yield from (self.numbers.get(f"<0x{byte:02X}>", -1) for byte in part.encode())


# llama.cpp's codes for the types of tokens.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_UNREACHED = -1e9  # the score of a token that no merge makes


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer's fields of a GGUF file.

    ``strips_after_special``: white space after a special token belongs to it, as in Phi-3; llama.cpp takes this rule
    from the model's name.
    """

    fields: Mapping[str, Any]
    strips_after_special: bool


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, num_rows: int) -> Vocabulary:
    """Return the vocabulary for a model with ``num_rows`` rows in its embedding.

    Raises:
        ModelError: llama.cpp would tokenize differently, or the tokenizer has more tokens than the model.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] != "BPE":
        raise refuse(f"tokenizers of the type {state['model']['type']} are not written", "only BPE and SentencePiece")
    tokens, types = _tokens(state, num_rows)
    strips = any(token["special"] and token["rstrip"] for token in state["added_tokens"])
    if _has_bytes(state):
        kind = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": _pre_tokenizer(state)}
        pieces: dict[str, Any] = {"tokenizer.ggml.merges": [" ".join(pair) for pair in _merges(state)]}
        space_prefix = False
    else:
        kind = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default"}
        scores = _scores(state, tokens)
        pieces = {"tokenizer.ggml.scores": scores}
        space_prefix = _space_prefix(tokenizer, tokens, types, scores, strips)
    fields = {
        **kind,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        **pieces,
        **_special(tokenizer),
        "tokenizer.ggml.add_bos_token": adds_bos(tokenizer),
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": space_prefix,
        "tokenizer.chat_template": self_contained_template(tokenizer),
    }
    return Vocabulary(fields, strips)


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether llama.cpp is to add the beginning-of-text token: where tokenizer and template both write it.

    It then removes the template's own. A template that writes none gets none.
    """
    bos = tokenizer.bos_token
    first = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return (
        bool(bos) and first and render(tokenizer, short_conversations()[0], add_generation_prompt=True).startswith(bos)
    )


def _tokens(state: Mapping[str, Any], num_rows: int) -> tuple[list[str], list[int]]:
    """Return the text and the type of each row of the embedding."""
    vocabulary = dict(state["model"]["vocab"])
    added = {token["content"]: token for token in state["added_tokens"]}
    vocabulary.update({text: token["id"] for text, token in added.items()})
    if vocabulary and max(vocabulary.values()) >= num_rows:
        raise ModelError(
            "the tokenizer has tokens that the model does not have",
            f"the highest token id is {max(vocabulary.values())}; the embedding has {num_rows} rows",
            "download the base model again: its tokenizer belongs to another model",
        )
    tokens, types = [f"[PAD{row}]" for row in range(num_rows)], [_UNUSED] * num_rows
    unknown, bytes_apart = state["model"].get("unk_token"), not _has_bytes(state)
    for text, row in vocabulary.items():
        if tokens[row] != f"[PAD{row}]":
            raise ModelError("two tokens have the same id", f"{tokens[row]!r} and {text!r} are both {row}")
        tokens[row] = text
        if text == unknown:
            types[row] = _UNKNOWN
        elif text in added:
            types[row] = _CONTROL if added[text]["special"] else _USER_DEFINED
        else:
            types[row] = _BYTE if bytes_apart and _is_byte(text) else _NORMAL
    return tokens, types


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _merges(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs in order; older files write a pair as one text."""
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in state["model"]["merges"])
    return [(left, right) for left, right in pairs]


def _special(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the ids of the special tokens; eot ends a turn where eos does not."""
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
        "eot": next((number for number in end_ids(tokenizer, None) if number != tokenizer.eos_token_id), None),
    }
    return {f"tokenizer.ggml.{name}_token_id": int(number) for name, number in ids.items() if number is not None}


def _steps(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return a pre-tokenizer's steps."""
    if part is None:
        return []
    return [step for each in part["pretokenizers"] for step in _steps(each)] if part["type"] == "Sequence" else [part]


def _has_bytes(state: Mapping[str, Any]) -> bool:
    """Return whether the tokenizer is a byte-level BPE; else it is SentencePiece's."""
    return any(step["type"] == "ByteLevel" for step in _steps(state["pre_tokenizer"]))


def _pre_tokenizer(state: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the rule that splits text into words before merging."""
    normalizer = state["normalizer"]
    # llama.cpp does not compose characters (NFC): decomposed text gives other tokens, as for all Qwen models.
    if normalizer is not None and normalizer["type"] != "NFC":
        raise refuse(
            "the tokenizer rewrites text before it splits it", f"by {normalizer['type']}, which llama.cpp lacks"
        )
    rules = []
    for step in _steps(state["pre_tokenizer"]):
        if step["type"] == "ByteLevel" and not step["add_prefix_space"]:
            rules += [_WORDS] if step["use_regex"] else []
        elif step["type"] == "Digits" and step["individual_digits"]:
            rules.append(_DIGITS)
        elif step["type"] == "Split" and _isolates(step):
            rules.append(step["pattern"]["Regex"])
        else:
            raise refuse("llama.cpp has no such pre-tokenizer", json.dumps(step)[:200])
    name = PRE_TOKENIZERS.get((tuple(rules), bool(state["model"].get("ignore_merges"))))
    if name is None:
        raise refuse("llama.cpp has no such pre-tokenizer", " then ".join(rules)[:300] or "none at all")
    return name


def _isolates(step: Mapping[str, Any]) -> bool:
    """Return whether a Split makes each match a word of its own."""
    behavior = (step["behavior"], step["invert"])
    return "Regex" in step["pattern"] and behavior in {("Isolated", False), ("Isolated", True), ("Removed", True)}


def _scores(state: Mapping[str, Any], tokens: Sequence[str]) -> list[float]:
    """Return SentencePiece's score of each token: the earlier a piece is merged, the higher."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(_merges(state)):
        ranks.setdefault(left + right, rank)
    return [-float(ranks[token]) if token in ranks else _UNREACHED for token in tokens]


def _space_prefix(
    tokenizer: PreTrainedTokenizerBase, tokens: list[str], types: list[int], scores: list[float], strips: bool
) -> bool:
    """Return whether llama.cpp is to add a space before text: the choice that tokenizes prompts as the tokenizer does.

    Raises:
        ModelError: neither does.
    """
    special = [row for row, kind in enumerate(types) if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)]
    prompts = [(render(tokenizer, turns, True), encode_prompt(tokenizer, turns)) for turns in short_conversations()]
    for prefix in (True, False):
        pieces = ScoredVocabulary(tokens, scores, special, prefix, strips)
        if all(pieces.encode(text) == ids for text, ids in prompts):
            return prefix
    raise refuse(
        "llama.cpp would tokenize this model's prompts differently",
        f"the tokenizer's merges, or its treatment of spaces ({SPACE}), are not SentencePiece's",
    )


_WORDS, _DIGITS = "GPT-2's words", "single digits"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST_WITH_SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+", rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
_LLAMA_3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN_2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_TEKKEN = "|".join(_CASED) + r"|\p{N}" + _REST_WITH_SLASH
_GPT_4O = "|".join(f"{words}{_CONTRACTIONS}?" for words in _CASED) + r"|\p{N}{1,3}" + _REST_WITH_SLASH

# By the rules that split text, and whether a word that is a token stays whole whatever the merges are.
PRE_TOKENIZERS: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((_WORDS,), False): "gpt-2",
    ((_DIGITS, _WORDS), False): "smollm",
    ((_LLAMA_3,), True): "llama-bpe",
    ((_LLAMA_3,), False): "dbrx",
    ((_QWEN_2,), False): "qwen2",
    ((_TEKKEN,), True): "tekken",
    ((_GPT_4O,), False): "gpt-4o",
}
