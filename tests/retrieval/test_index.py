"""The index: words, meaning and named titles, fused by rank; nothing hidden is returned."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.sentence_models import make_sentence_model
from tunewright.errors import ModelError
from tunewright.retrieval.index import Index, WordIndex
from tunewright.retrieval.sentence_model import SentenceModel

TEXTS = [
    "The trial enrolled 120 nurses in two hospitals.",
    "Copper prices fell by 4 percent in April.",
    "A glacier in Norway lost nine metres of ice.",
    "The hospital hired 12 more nurses after the trial.",
]


class OneHot:
    """Vectors by topic: what a sentence model knows beyond words."""

    topics = (("nurse", "hospital", "caregiver"), ("copper", "price", "metal"), ("glacier", "ice", "frozen"))

    def passages(self, texts):
        rows = [[float(any(word in text.lower() for word in topic)) for topic in self.topics] for text in texts]
        return np.array(rows, dtype=np.float32)

    queries = passages


WORDS = st.sampled_from(["nurse", "copper", "ice", "zebra", "hospital", "the", "norway"])


@given(st.lists(st.lists(WORDS, max_size=6).map(" ".join), min_size=1, max_size=8), st.lists(WORDS, max_size=5))
def test_scores_by_words_are_a_share_of_the_most_that_a_text_could_score(texts, query):
    index = WordIndex([f"text {text}" for text in texts])
    scores = index.scores(" ".join(query))
    assert ((scores >= 0) & (scores < 1)).all()
    # A word that no text holds lowers the share of every text, and changes no order.
    foreign = index.scores(" ".join([*query, "quagga"]))
    assert (foreign <= scores).all() and ((foreign < scores) == (scores > 0)).all()
    assert [i for i, _ in index.rank(" ".join(query), 3)] == list(
        np.argsort(-scores, kind="stable")[: min(3, sum(scores > 0))]
    )


def test_a_bad_match_by_words_gives_way_to_meaning_and_a_good_one_does_not():
    index = Index(TEXTS, OneHot())
    # One rare word of many matches the glacier; the meaning is the metal's.
    query = "during nine long weeks, which quotation rose at the metal exchange?"
    assert WordIndex(TEXTS).rank(query, 1)[0][0] == 2
    assert index.search(query, 1)[0][0] == 1
    # All words match one text; the nearest vector is another's.
    assert index.search("glacier Norway lost nine metres, frozen copper", 1)[0][0] == 2


def test_words_alone_return_only_texts_that_share_one():
    index = Index(TEXTS)
    assert [number for number, _ in index.search("how many nurses", 4)] == [0, 3]
    assert index.search("metal quotations", 4) == []


def test_texts_without_spaces_are_ranked_by_words_too():
    index = Index(["日本の首都は東京です。", "富士山の高さは3776メートルです。", "กรุงเทพเป็นเมืองหลวง"])
    assert index.search("富士山の高さは?", 1)[0][0] == 1
    assert index.search("เมืองหลวง", 3)[0][0] == 2


def test_meaning_finds_what_no_word_does():
    index = Index(TEXTS, OneHot())
    assert index.search("what did the metal cost?", 1)[0][0] == 1
    assert {number for number, _ in index.search("caregivers", 2)} == {0, 3}


def test_a_hidden_text_is_never_returned():
    for index in (Index(TEXTS), Index(TEXTS, OneHot())):
        found = [number for number, _ in index.search("nurses of the hospital trial", 4, frozenset({0}))]
        assert found[0] == 3 and 0 not in found


def test_a_named_title_brings_its_document_and_does_not_hide_the_question():
    titles = ["Nurses and workload", "Metal markets in spring", "Ice loss in Norway 2020", "Nurses and workload"]
    index = Index(TEXTS, titles=titles)
    question = 'By how much did it fall, according to "Metal Markets  in spring"?'
    assert index.search(question, 1)[0][0] == 1
    # The words of a title about nurses do not outweigh the question's own.
    index = Index(TEXTS, OneHot(), titles)
    assert index.search('How many metres of ice were lost, as in "Nurses and workload"?', 4)[0][0] == 2


def test_a_title_is_named_in_quotes_by_its_first_words():
    titles = ["Nurses and workload", 'The "stuck" market: a survey of metals, 2001 to 2020.', "Ice loss in Norway", ""]
    index = Index(TEXTS, titles=titles)
    named = 'What happened, according to "The "stuck" market"?'
    assert [number for number, _ in index.search(named, 4)] == [1]
    assert [number for number, _ in index.search("What happened, according to “Nurses and workload”?", 4)] == [0]
    # Without quotes, or cut within a word, the first words of a title are words like any other.
    assert index.search("the stuck market", 1) == [] == index.search('What, in "The "stuck" mark"?', 1)
    longer = Index(TEXTS, titles=["Copper in Chile", "Copper in Chile and Peru", "", ""])
    assert longer.search('How many nurses, according to "Copper in Chile and Peru"?', 4)[0][0] in (0, 1)
    assert {number for number, _ in longer.search("nurses in Copper in Chile and Peru", 4)} == {0, 1, 3}


def test_an_empty_index_returns_nothing():
    assert Index([]).search("anything", 3) == [] == Index([], OneHot()).search("anything", 3)
    assert Index(["", "the"]).search("the", 3) == []


def test_a_sentence_model_pools_as_its_folder_says_and_loses_no_word_of_a_long_text(tmp_path):
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = make_sentence_model(tmp_path / "model", max_tokens=16)
    model, text = SentenceModel(folder), "group nine had twelve members of the old collection"
    tokenizer, plain = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = plain(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    expected = torch.nn.functional.normalize(states.mean(0), dim=0).numpy()
    rounding = 0.01  # of bf16, on a CPU that has it
    assert model.passages([text])[0] == pytest.approx(expected, abs=rounding)
    together = model.passages([text, "short", f"{text} " * 9])
    assert together[0] == pytest.approx(expected, abs=rounding)
    assert np.linalg.norm(together, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    changed = model.passages([f"{text} " * 9 + "glacier"])
    assert np.abs(changed[0] - together[2]).max() > 2 * rounding


def test_prefixes_of_questions_are_the_models_own(tmp_path):
    folder = make_sentence_model(tmp_path / "model", prompts={"query": "old group ", "document": ""})
    model = SentenceModel(folder)
    assert model.queries(["nine"])[0] == pytest.approx(model.passages(["old group nine"])[0], abs=1e-6)
    assert np.abs(model.queries(["nine"])[0] - model.passages(["nine"])[0]).max() > 1e-4


def test_a_folder_that_is_no_sentence_model_is_refused_by_name(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="not a sentence-embedding model"):
        SentenceModel(folder)
    odd = make_sentence_model(tmp_path / "odd", pooling="pooling_mode_max_tokens")
    with pytest.raises(ModelError, match="pooling_mode_max_tokens"):
        SentenceModel(odd)


def test_the_word_index_never_imports_jax_which_would_reserve_a_gpu(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise SystemExit('jax was imported')")
    code = "from tunewright.retrieval.index import WordIndex; print(WordIndex(['a cat', 'a dog']).rank('cat', 1)[0][0])"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout.strip(), result.returncode) == ("0", 0), result.stderr
