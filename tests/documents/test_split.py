"""The split: near-duplicates together, nearest to the share, and one edit moves nothing else."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.documents.split import exam_groups, near_duplicate_groups, split_documents
from tunewright.errors import DocumentError
from tunewright.records import Document, digest
from tunewright.text.normalization import jaccard, shingles, words

WORDS = [f"w{number}" for number in range(500)]


def make_document(source: str, text: str) -> Document:
    return Document(id=digest(source, text), title=source, source=source, text=text)


def random_text(rng: random.Random, num_words: int = 60) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(num_words))


def edited(rng: random.Random, text: str, num_edits: int) -> str:
    tokens = text.split()
    for index in rng.sample(range(len(tokens)), num_edits):
        tokens[index] = rng.choice(WORDS)
    return " ".join(tokens)


def family(seed: int, num_originals: int, num_copies: int) -> list[Document]:
    rng = random.Random(seed)
    texts = [random_text(rng) for _ in range(num_originals)]
    texts += [edited(rng, rng.choice(texts), rng.randint(0, 3)) for _ in range(num_copies)]
    rng.shuffle(texts)
    return [make_document(f"d{number:03}.md", text) for number, text in enumerate(texts)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(0, 8), st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_groups_are_the_components_of_true_similarity(seed: int, originals: int, copies: int, bound: float) -> None:
    documents = family(seed, originals, copies)
    component = {document.source: {document.source} for document in documents}
    for first, second in combinations(documents, 2):
        if jaccard(shingles(words(first.text), 5), shingles(words(second.text), 5)) >= bound:
            union = component[first.source] | component[second.source]
            component.update(dict.fromkeys(union, union))
    groups = near_duplicate_groups(documents, bound)
    assert {tuple(d.source for d in group) for group in groups} == {tuple(sorted(c)) for c in component.values()}


def test_near_duplicates_share_a_group_and_unrelated_texts_do_not() -> None:
    rng = random.Random(0)
    text = random_text(rng, 300)
    documents = [
        make_document("b.md", text),
        make_document("a.md", text.upper() + " and a few words more"),
        make_document("c.md", random_text(rng, 300)),
        make_document("d.md", "Too short."),
        make_document("e.md", "Also short."),
        make_document("f.md", "..."),
        make_document("g.md", "!!!"),
    ]
    groups = [[document.source for document in group] for group in near_duplicate_groups(documents, 0.8)]
    assert groups == [["a.md", "b.md"], ["c.md"], ["d.md"], ["e.md"], ["f.md"], ["g.md"]]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.floats(0, 1))
def test_exam_takes_its_share(sizes: list[int], share: float) -> None:
    taken = exam_groups(sizes, share)
    count = sum(sizes[rank] for rank in taken)
    if share == 0:
        assert not taken
    elif share == 1:
        assert taken == set(range(len(sizes)))
    elif len(sizes) > 1:
        assert 0 < count < sum(sizes)
    if set(sizes) == {1} and len(sizes) > 1 and 0 < share < 1:
        expected = min(max(share * len(sizes), 1), len(sizes) - 1)
        assert abs(count - expected) <= 0.5
    # Never further off than half the largest group, or than what the two sides need at least.
    off = abs(count - share * sum(sizes))
    assert off <= max(sizes) / 2 + 1e-6 or count in (min(sizes), sum(sizes) - min(sizes)) or len(sizes) == 1


def test_a_group_too_large_for_the_exam_is_passed_over() -> None:
    assert exam_groups([90, 5, 5], 0.1) == {1, 2}
    assert exam_groups([50, 50], 0.01) == {0}
    assert exam_groups([50, 50], 0.99) == {1}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.integers(0, 3))
def test_split_holds_its_promises(seed: int, share: float, split_seed: int) -> None:
    documents = family(seed, 6, 5)
    entries = split_documents(documents, share, 0.8, split_seed)
    assert [entry.document for entry in entries] == [document.id for document in documents]
    sides: dict[str, set[str]] = {}
    for entry in entries:
        sides.setdefault(entry.group, set()).add(entry.side)
    assert all(len(side) == 1 for side in sides.values())
    assert {entry.side for entry in entries} == {"train", "exam"}
    shuffled = random.Random(seed).sample(documents, len(documents))
    assert set(split_documents(shuffled, share, 0.8, split_seed)) == set(entries)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 11))
def test_editing_one_document_moves_no_other(seed: int, index: int) -> None:
    rng = random.Random(-1 - seed)  # another stream than the family has
    documents = family(seed, 12, 0)
    before = {d.source: e.side for d, e in zip(documents, split_documents(documents, 0.25, 0.8, 7), strict=True)}
    documents[index] = make_document(documents[index].source, random_text(rng))
    after = {d.source: e.side for d, e in zip(documents, split_documents(documents, 0.25, 0.8, 7), strict=True)}
    assert before == after


def test_seeds_give_different_exams() -> None:
    documents = family(1, 20, 0)
    exams = {
        frozenset(e.group for e in split_documents(documents, 0.25, 0.8, seed) if e.side == "exam") for seed in range(8)
    }
    assert len(exams) > 4
    assert {len(exam) for exam in exams} == {5}


@pytest.mark.parametrize(("copies", "cause"), [(0, "only one document"), (3, "all 4 documents are near-duplicates")])
def test_what_cannot_be_split_is_an_error(copies: int, cause: str) -> None:
    text = random_text(random.Random(3), 200)
    documents = [make_document(f"{n}.md", f"{text} {n}") for n in range(copies + 1)]
    with pytest.raises(DocumentError) as caught:
        split_documents(documents, 0.25, 0.8, 0)
    assert cause in caught.value.cause
    assert "split.exam_share=0" in caught.value.hint
    assert {entry.side for entry in split_documents(documents, 0, 0.8, 0)} == {"train"}
