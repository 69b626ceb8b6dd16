"""Vectors in a file: each text is embedded once; a damaged file and another model's are computed again."""

import numpy as np
import pytest

from tunewright.retrieval.stored_vectors import StoredVectors


class Counting:
    """A model that notes what it embeds."""

    def __init__(self):
        self.embedded = []

    def passages(self, texts):
        self.embedded += texts
        rows = [[len(text), 1.0 + text.count("a")] for text in texts]
        return np.array(rows, dtype=np.float32)

    def queries(self, texts):
        return -self.passages(texts)


def test_each_text_is_embedded_once(tmp_path):
    file, model = tmp_path / "vectors.safetensors", Counting()
    first = StoredVectors(model, file, "m").passages(["a", "bb", "a"])
    again = StoredVectors(model, file, "m")
    assert (again.passages(["bb", "a", "aaa"]) == [[2, 1], [1, 2], [3, 4]]).all()
    assert model.embedded == ["a", "bb", "aaa"]
    assert (first == again.passages(["a", "bb", "a"])).all() and first.dtype == np.float32
    assert (again.queries(["a"]) == [[-1, -2]]).all()


def test_another_models_vectors_are_never_used(tmp_path):
    file, model = tmp_path / "vectors.safetensors", Counting()
    StoredVectors(model, file, "one").passages(["a"])
    StoredVectors(model, file, "two").passages(["a"])
    assert model.embedded == ["a", "a"]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_damaged_file_is_computed_again_with_a_warning(tmp_path, share, capsys):
    file, model = tmp_path / "vectors.safetensors", Counting()
    expected = StoredVectors(model, file, "m").passages(["a", "bb"])
    content = bytearray(file.read_bytes())
    content[int(share * len(content))] ^= 1
    for damaged in (bytes(content), bytes(content[: len(content) // 2])):
        file.write_bytes(damaged)
        assert (StoredVectors(model, file, "m").passages(["a", "bb"]) == expected).all()
        assert "damaged" in capsys.readouterr().err
    assert (StoredVectors(model, file, "m").passages(["a", "bb"]) == expected).all()
    assert model.embedded == ["a", "bb"] * 3
