import json
import random

import numpy as np
import pytest
from safetensors.numpy import save_file

from support.tiny import make_tokenizer
from support.word_vectors import WORDS, vectors
from tunewright.curation import deduplication, text_vectors
from tunewright.curation.deduplication import embedding_duplicates, meaning_tokens, setting
from tunewright.curation.text_vectors import StoredRows, near_pairs, sif_vectors
from tunewright.errors import ModelError
from tunewright.models.tensors import read_token_vectors
from tunewright.records import Message, Sample


def sample(name: str, question: str, answer: str, system: str = "") -> Sample:
    turns = [Message(role="user", content=question), Message(role="assistant", content=answer)]
    head = [Message(role="system", content=system)] if system else []
    return Sample(id=name, task="free-qa", messages=(*head, *turns))


ALONE = ("cat", "rose", "stone", "house", "ran", "slept", "saw")
FILLER = [sample(word, f"what did the {word} in", f"the {word} by {word}") for word in ALONE]
FIRST = sample("first", "what did the dog", "the dog ran in the house")


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (sample("b", "what did the hound", "the hound ran in the house"), True),
        (sample("b", "what did the hound", "the hound ran in the house", system="Be brief."), False),
        (sample("b", "the rose\n\nwhat did the hound", "the hound ran in the house"), False),
        (sample("b", "what did the hound", "the hound slept by a stone"), False),
    ],
)
def test_the_same_in_other_words_and_in_the_same_setting_is_a_duplicate(second, expected):
    assert embedding_duplicates([FIRST, *FILLER, second], vectors(), 0.97) == ({8: 0} if expected else {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the dog ran in 1990", "the hound ran in 1991"),
        ("the dog saw 3.5 cats", "the dog saw 3,5 cats"),
        ("the dog of Ann ran", "the dog of Eve ran"),
        ("the dog did not run", "the dog did run"),
        ("the dog ran before the cat", "the dog ran after the cat"),
        ("the values of A1c were higher", "the values of A1c were lower"),
    ],
)
def test_numbers_names_and_turning_words_protect(one, other):
    assert meaning_tokens(one) != meaning_tokens(other)
    pair = [sample("a", "what did the dog", one), *FILLER, sample("b", "what did the dog", other)]
    low = 0.2  # far below what these pairs reach
    assert 8 not in embedding_duplicates(pair, vectors(), low)
    assert embedding_duplicates([pair[0], *FILLER, sample("b", "what did the hound", one)], vectors(), low).get(8) == 0


def test_a_chain_of_repetitions_keeps_its_first():
    chain = [FIRST, *[sample(str(n), "what did the hound", FIRST.answer) for n in range(4)], *FILLER]
    assert embedding_duplicates(chain, vectors(), 0.97) == {1: 0, 2: 0, 3: 0, 4: 0}


def test_what_is_dropped_drops_nothing_itself(monkeypatch):
    three = [FIRST, sample("b", "what did the hound", FIRST.answer), sample("c", "what did the dog", FIRST.answer)]
    monkeypatch.setattr(deduplication, "near_pairs", lambda rows, groups, threshold: iter([(0, 1), (1, 2)]))
    assert embedding_duplicates(three, vectors(), 0.97) == {1: 0}


def test_the_index_finds_what_comparing_all_pairs_finds():
    draw = np.random.default_rng(3)
    base = draw.standard_normal((300, 64))
    rows = np.concatenate([base, base + 0.12 * draw.standard_normal((300, 64)), draw.standard_normal((400, 64))])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    groups = [n % 2 for n in range(1000)]
    cosines = rows @ rows.T
    expected = {
        (low, high)
        for low, high in zip(*np.where(np.triu(cosines, 1) >= 0.97), strict=True)
        if groups[low] == groups[high]
    }
    found = set(near_pairs(rows, groups, 0.97))
    assert len(expected) > 250 and found <= expected and len(found) >= 0.99 * len(expected)


def test_vectors_have_unit_length_and_no_common_direction():
    draw = random.Random(1)
    rows = sif_vectors([" ".join(draw.choices(WORDS, k=8)) for _ in range(200)], vectors())
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert abs(np.linalg.norm(rows.mean(axis=0))) < 0.2  # 0.7 and more when the common direction is left in


@pytest.mark.parametrize("texts", [[], ["the dog"], ["", ""], ["the dog", "the dog"]])
def test_few_and_empty_texts_have_vectors_too(texts):
    rows = sif_vectors(texts, vectors())
    assert rows.shape == (len(texts), 32) and np.isfinite(rows).all()
    assert list(near_pairs(rows, [0] * len(texts), 0.97)) == []


def test_a_setting_is_all_but_question_and_answer():
    same = sample("b", "why did the cat", "because")
    assert setting(FIRST) == setting(same) != setting(sample("c", "passage\n\nwhy did the cat", "because"))


@pytest.mark.parametrize("split", [False, True])
def test_the_embedding_alone_is_read_whole_or_in_parts(tmp_path, split):
    make_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    table = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float16)
    name = "model.embed_tokens.weight"
    save_file({name: table, "other": np.zeros(3, np.float32)}, tmp_path / "model-1.safetensors")
    if split:
        index = {"weight_map": {"other": "model-2.safetensors", name: "model-1.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    read = read_token_vectors(str(tmp_path))
    assert read.table.dtype == np.float32 and np.array_equal(read.table, table.astype(np.float32))
    [ids, empty] = read.tokens(["The study", ""])
    assert len(ids) > 0 and len(empty) == 0


def test_bfloat16_and_wide_embeddings_are_read(tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch

    make_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    torch.manual_seed(0)
    table = torch.randn(400, 4096).to(torch.bfloat16)
    save_torch({"wte.weight": table}, tmp_path / "model.safetensors")
    read = read_token_vectors(str(tmp_path)).table
    assert read.shape == (400, 1024)

    def cosines(rows):
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows @ rows.T

    assert np.abs(cosines(read) - cosines(table.float().numpy())).max() < 0.2


def test_weights_without_an_embedding_are_an_error_with_a_way_out(tmp_path):
    make_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    save_file({"other": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="no recognizable input embedding") as caught:
        read_token_vectors(str(tmp_path))
    assert "embedding_duplicate=0" in caught.value.hint


def test_vectors_in_a_file_and_in_blocks_are_those_in_memory(monkeypatch):
    draw = random.Random(2)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(0, 8))) for _ in range(301)]
    texts += texts[40:60]
    groups = [n % 3 for n in range(len(texts))]
    whole = sif_vectors(texts, vectors())
    pairs = list(near_pairs(whole, groups, 0.97))
    monkeypatch.setattr(text_vectors, "_BLOCK", 50)
    monkeypatch.setattr(text_vectors, "_FEW", 7)
    monkeypatch.setattr(text_vectors, "_MOST_IN_MEMORY", 0)
    rows = sif_vectors(iter(texts), vectors())
    assert isinstance(rows, StoredRows)
    assert np.allclose(rows[:], whole, atol=1e-6)
    assert pairs and list(near_pairs(rows, groups, 0.97)) == pairs


def test_a_sketch_bounds_every_cosine_and_spares_most_readings():
    rows = sif_vectors([" ".join(random.Random(n).choices(WORDS, k=6)) for n in range(200)], vectors())
    sketches = text_vectors._Sketches(rows[:50], len(rows))
    for start in range(0, len(rows), 30):
        sketches.add(start, rows[start : start + 30])
    earlier, later = np.triu_indices(len(rows), 1)
    cosines, bounds = np.einsum("ij,ij->i", rows[earlier], rows[later]), sketches.bounds(earlier, later)
    assert (bounds >= cosines).all()
    near = np.quantile(cosines, 0.999)
    assert (bounds >= near).mean() < 0.1
