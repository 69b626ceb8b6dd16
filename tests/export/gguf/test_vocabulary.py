"""llama.cpp's tokens of an exported vocabulary, against the tokenizer's own."""

from __future__ import annotations

import json
import random
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.exported import make_exportable
from support.families import SYSTEM, TINY, turns
from support.gguf_folder import write_gguf
from tunewright.export.comparison import TEXTS, short_conversations
from tunewright.export.gguf.llama_runner import LlamaRunner
from tunewright.export.gguf.vocabulary import PRE_TOKENIZERS, ScoredVocabulary
from tunewright.models.chat_template import encode_prompt, load_tokenizer

WORDS = (
    "don't",
    "'LL ",
    "3.141592",
    "  ",
    "\n",
    "\r\n\n",
    "\t",
    "naïve",
    "東京都",
    "ñ",
    "🦙🦙",
    "<|im_end|>",
    "</s>",
    "_a/b",
    " 12",
    "!!!",
    "ǅ",
    "\u0301",
    "²",
    "Ⅷ",
)
MIXED = "camelCase camelCase HeLLO'S in 2024: 12345,\n\n 3rd-rate's//\n"
texts = st.lists(st.one_of(st.sampled_from((*WORDS, MIXED)), st.text(max_size=8)), max_size=8).map("".join)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _pre_tokenizer(cuts):
    steps = []
    for cut in cuts:
        if cut == "single digits":
            steps.append({"type": "Digits", "individual_digits": True})
        elif cut != "GPT-2's words":
            steps.append({"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False})
    steps.append(
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": "GPT-2's words" in cuts}
    )
    return {"type": "Sequence", "pretokenizers": steps}


def _with_wild_merges(folder, cuts, ignore_merges):
    """A tiny model whose tokenizer merges across words wherever nothing cuts them apart."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    make_exportable("smollm2", folder, vocab_size=1200)
    draw = random.Random(0)
    # A token that merely looks like an end token is one to llama.cpp.
    ordinary = [word for word in (*WORDS, MIXED) if not word.startswith("<")]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["".join(draw.choices(ordinary, k=20)) for _ in range(200)], trainer)
    state = json.loads((folder / "tokenizer.json").read_text())
    state["model"] = json.loads(tokenizer.to_str())["model"]
    state["pre_tokenizer"] = _pre_tokenizer(cuts)
    state["model"]["ignore_merges"] = ignore_merges
    (folder / "tokenizer.json").write_text(json.dumps(state))
    return folder


# llama.cpp has no classes of letters by case: it takes ASCII's capitals for all, and no mark begins a word.
CASED_BY_ASCII = {"tekken", "gpt-4o"}


@pytest.fixture(scope="module", params=PRE_TOKENIZERS.items(), ids=lambda entry: entry[1])
def cutting(request, tmp_path_factory):
    (cuts, ignore_merges), name = request.param
    folder = _with_wild_merges(tmp_path_factory.mktemp(name) / "model", cuts, ignore_merges)
    write_gguf(folder, folder / "model.gguf", "f16")
    with LlamaRunner(folder / "model.gguf") as runner:
        yield name, runner, load_tokenizer(folder)


def _cut_alike(character):
    return character.isascii() or unicodedata.category(character) not in {"Lu", "Ll", "Lt", "Mn", "Mc", "Me"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts)
def test_words_are_cut_as_the_tokenizer_cuts_them(cutting, text):
    name, runner, tokenizer = cutting
    text = "".join(filter(_cut_alike, text)) if name in CASED_BY_ASCII else text
    assert runner.tokenize(text) == ids_of(tokenizer, text)


@pytest.mark.parametrize("text", ["\t\u0301", "aÉb"])
def test_where_llama_cpp_is_known_to_cut_otherwise(cutting, text):
    name, runner, tokenizer = cutting
    assert (runner.tokenize(text) == ids_of(tokenizer, text)) == (name not in CASED_BY_ASCII)


def test_the_cutting_rules_differ_on_some_text(tmp_path):
    encodings = set()
    for number, (cuts, ignore_merges) in enumerate(PRE_TOKENIZERS):
        tokenizer = load_tokenizer(_with_wild_merges(tmp_path / str(number), cuts, ignore_merges))
        encodings.add(tuple(ids_of(tokenizer, MIXED)))
    assert len(encodings) >= 5  # the others differ in what they do with capitals, or with words that are tokens


@pytest.fixture(scope="module", params=TINY)
def family(request, tmp_path_factory):
    folder = make_exportable(request.param, tmp_path_factory.mktemp(request.param) / "model")
    write_gguf(folder, folder / "model.gguf", "f16")
    with LlamaRunner(folder / "model.gguf") as runner:
        yield runner, load_tokenizer(folder)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts)
def test_every_familys_tokens_are_the_tokenizers(family, text):
    runner, tokenizer = family
    # Qwen's tokenizer composes characters first; llama.cpp leaves that to whoever calls it.
    text = unicodedata.normalize("NFC", text) if tokenizer.backend_tokenizer.normalizer else text
    assert runner.tokenize(text) == ids_of(tokenizer, text)


def test_llama_cpp_renders_and_tokenizes_the_prompts_of_the_exam(family):
    runner, tokenizer = family
    for messages in (*short_conversations(), (SYSTEM, *turns("Who had it?"))):
        assert runner.prompt_ids(messages) == encode_prompt(tokenizer, messages)


@given(text=texts)
def test_pieces_are_merged_as_the_tokenizer_merges_them(text, completed):
    tokenizer, pieces = completed
    assert pieces.encode(text) == ids_of(tokenizer, text)


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    from tunewright.export.gguf.vocabulary import vocabulary_of

    tokenizer = load_tokenizer(make_exportable("llama2", tmp_path_factory.mktemp("pieces") / "model"))
    fields = vocabulary_of(tokenizer, 400).fields
    special = [row for row, kind in enumerate(fields["tokenizer.ggml.token_type"]) if kind in (2, 3, 4)]
    scores = fields["tokenizer.ggml.scores"]
    return tokenizer, ScoredVocabulary(fields["tokenizer.ggml.tokens"], scores, special, True, False)


def test_probes_hold_every_role_and_awkward_text():
    assert {message.role for turns in short_conversations() for message in turns} == {"system", "user", "assistant"}
    assert all(turns[-1].role == "user" for turns in short_conversations())
    assert any(ord(character) > 0xFFFF for character in "".join(TEXTS))
