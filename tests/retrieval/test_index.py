"""The index: words, meaning and named titles, fused by rank; nothing hidden is returned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.sentence_models import make_sentence_model
from tunewright.errors import ModelError
from tunewright.retrieval.index import Index, fuse
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


@given(st.lists(st.lists(st.integers(0, 20), unique=True), max_size=3))
def test_fusion_is_the_sum_of_reciprocal_ranks(rankings):
    fused = fuse(rankings)
    expected = {i: sum(1 / (61 + r.index(i)) for r in rankings if i in r) for r in rankings for i in r}
    assert dict(fused) == pytest.approx(expected)
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)


def test_words_alone_return_only_texts_that_share_one():
    index = Index(TEXTS)
    assert [number for number, _ in index.search("how many nurses", 4)] == [0, 3]
    assert index.search("metal quotations", 4) == []


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


def test_an_empty_index_returns_nothing():
    assert Index([]).search("anything", 3) == [] == Index([], OneHot()).search("anything", 3)


def test_a_sentence_model_pools_as_its_folder_says_and_loses_no_word_of_a_long_text(tmp_path):
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = make_sentence_model(tmp_path / "model", max_tokens=16)
    model, text = SentenceModel(folder), "group nine had twelve members of the old collection"
    tokenizer, plain = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = plain(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    expected = torch.nn.functional.normalize(states.mean(0), dim=0).numpy()
    assert model.passages([text])[0] == pytest.approx(expected, abs=1e-5)
    together = model.passages([text, "short", f"{text} " * 9])
    assert together[0] == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(together, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    changed = model.passages([f"{text} " * 9 + "glacier"])
    assert np.abs(changed[0] - together[2]).max() > 1e-4


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
