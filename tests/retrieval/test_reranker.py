"""The reranker: a cross-encoder orders the first 20 texts of the index; what is none is refused by name."""

import pytest

from support.tiny import make_reward_model
from tunewright.errors import ModelError
from tunewright.retrieval.index import Index
from tunewright.retrieval.reranker import Reranker

TEXTS = [f"nurse number {n} {'ice ' * n}" for n in range(30)]


def test_the_first_20_are_in_the_order_of_a_cross_encoders_scores(tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = make_reward_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def expected(text):
        with torch.no_grad():
            return float(model(**tokenizer("which nurse?", text, return_tensors="pt")).logits)

    reranker, plain = Reranker(folder), Index(TEXTS).search("which nurse?", 30)
    texts = [TEXTS[number] for number, _ in plain[:20]]
    assert reranker.scores("which nurse?", texts) == pytest.approx([expected(text) for text in texts], abs=1e-4)
    ranked = Index(TEXTS, reranker=reranker).search("which nurse?", 30)
    by_reader = sorted(plain[:20], key=lambda item: -expected(TEXTS[item[0]]))
    assert ranked == [*by_reader, *plain[20:]]
    assert ranked[:20] != plain[:20]
    assert Index(TEXTS, reranker=reranker).search("which nurse?", 3) == ranked[:3]
    assert Index(TEXTS, reranker=reranker).search("quagga", 3) == []


def test_a_model_that_is_no_reranker_is_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match="not a reranker") as caught:
        Reranker(make_reward_model(tmp_path / "two", num_labels=2))
    assert "2 outputs" in caught.value.cause and "retrieval.reranker" in caught.value.hint
