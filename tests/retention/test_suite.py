import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz, process

from tunewright.errors import UserError
from tunewright.evaluation.retention import CHECKS, passes
from tunewright.text.normalization import normalize

SUITE = files("tunewright.retention")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


CHOICES, FORMATS, PASSAGES = (
    lines((SUITE / f"{name}.jsonl").read_text(encoding="utf-8")) for name in ("choices", "formats", "passages")
)
EXAMPLES = lines((Path(__file__).parent / "format_examples.jsonl").read_text(encoding="utf-8"))


def test_the_suite_has_its_sizes_and_unique_ids() -> None:
    assert (len(CHOICES), len(FORMATS), len(PASSAGES)) == (300, 60, 120)
    ids = [item["id"] for item in CHOICES + FORMATS + PASSAGES]
    assert len(set(ids)) == len(ids)
    assert sum(len(file.read_bytes()) for file in SUITE.iterdir()) <= 1_000_000


def test_every_line_has_exactly_the_documented_fields() -> None:
    assert all(list(item) == ["id", "topic", "level", "question", "options", "right"] for item in CHOICES)
    assert all(list(item) == ["id", "prompt", "checks"] for item in FORMATS)
    assert all(list(item) == ["id", "kind", "text"] for item in PASSAGES)


def test_topics_and_levels_are_spread_evenly() -> None:
    topics, levels = (Counter(item[key] for item in CHOICES) for key in ("topic", "level"))
    assert len(topics) == 13
    assert set(topics.values()) <= {23, 24}
    assert set(levels) == {1, 2, 3}
    assert min(levels.values()) >= 90


def test_four_options_differ_and_the_right_option_is_equally_often_at_each_position() -> None:
    assert all(len({option.strip() for option in item["options"]}) == 4 for item in CHOICES)
    assert Counter(item["right"] for item in CHOICES) == dict.fromkeys(range(4), 75)


def test_no_letter_can_be_guessed_from_the_topic_or_the_level() -> None:
    for key in ("topic", "level"):
        for name in {item[key] for item in CHOICES}:
            positions = Counter(item["right"] for item in CHOICES if item[key] == name)
            assert max(positions.values()) <= 0.35 * positions.total(), name


def length_rank(item: dict[str, Any]) -> float:
    """0 for the shortest of four, 3 for the longest; ties share their ranks."""
    lengths = [len(option) for option in item["options"]]
    right = lengths.pop(item["right"])
    return sum((length < right) + (length == right) / 2 for length in lengths)


def test_the_length_does_not_reveal_the_right_option() -> None:
    ranks = [length_rank(item) for item in CHOICES]
    assert abs(sum(ranks) / len(ranks) - 1.5) <= 0.15  # 1.5 by chance
    assert ranks.count(3) <= 0.28 * len(ranks)
    assert ranks.count(0) <= 0.28 * len(ranks)


@pytest.mark.parametrize(
    ("items", "key", "bound"),
    [(CHOICES, "question", 92), (FORMATS, "prompt", 85), (PASSAGES, "text", 65)],
    ids=["choices", "formats", "passages"],
)
def test_no_item_repeats_another(items: list[dict[str, Any]], key: str, bound: float) -> None:
    texts = [normalize(item[key]) for item in items]
    alike = process.cdist(texts, texts, scorer=fuzz.ratio, score_cutoff=bound)
    repeats = [(texts[i], texts[j]) for i in range(len(texts)) for j in range(i) if alike[i][j]]
    assert not repeats


def test_passages_have_60_to_110_words_and_many_registers() -> None:
    assert all(60 <= len(item["text"].split()) <= 110 for item in PASSAGES)
    assert all(item["text"] == item["text"].strip() for item in PASSAGES)
    assert len({item["kind"] for item in PASSAGES}) >= 15
    assert sum(item["kind"] in ("german", "french", "spanish") for item in PASSAGES) == 6


def test_schemas_of_format_checks_are_valid_and_each_kind_is_used() -> None:
    checks = [check for item in FORMATS for check in item["checks"]]
    for check in checks:
        if check["kind"] == "json":
            jsonschema.Draft202012Validator.check_schema(check["schema"])
    assert {check["kind"] for check in checks} == set(CHECKS)


def test_every_format_prompt_has_answers_that_pass_and_fail() -> None:
    assert [item["id"] for item in EXAMPLES] == [item["id"] for item in FORMATS]
    assert all(item["passing"] and item["failing"] for item in EXAMPLES)


@pytest.mark.parametrize(
    ("prompt", "examples"), list(zip(FORMATS, EXAMPLES, strict=True)), ids=[f["id"] for f in FORMATS]
)
def test_checks_separate_the_examples(prompt: dict[str, Any], examples: dict[str, Any]) -> None:
    assert [passes(answer, prompt["checks"]) for answer in examples["passing"]] == [True] * len(examples["passing"])
    assert [passes(answer, prompt["checks"]) for answer in examples["failing"]] == [False] * len(examples["failing"])
    assert all(passes(f"\n{answer}  \n", prompt["checks"]) for answer in examples["passing"])
    assert not passes(" \n", prompt["checks"])
    assert max(len(answer) for answer in examples["passing"]) <= 160  # some 40 tokens


@pytest.mark.parametrize(
    ("answer", "check", "expected"),
    [
        ("1. a\n\n2) b", {"kind": "numbered_list", "count": 2}, True),
        ("1. a\n1. b", {"kind": "numbered_list", "count": 2}, False),
        ("1. a\n2. b\nDone.", {"kind": "numbered_list", "count": 2}, False),
        ("• a\n- b", {"kind": "bullet_list", "count": 2}, True),
        ("**a**\n**b**", {"kind": "bullet_list", "count": 2}, False),
        ("Dr. No left. He ran!", {"kind": "sentences", "count": 2}, True),
        ("An answer that was cut before", {"kind": "sentences", "count": 1}, False),
        ("well-known - it's", {"kind": "words", "min": 2, "max": 2}, True),
        ('{"a": 1, "a": 2}', {"kind": "json", "schema": {}}, False),
        ("[1]", {"kind": "json", "schema": {}}, False),
        ('"Yes."', {"kind": "one_of", "texts": ["yes", "no"]}, True),
        ("yes and no", {"kind": "one_of", "texts": ["yes", "no"]}, False),
        ("123", {"kind": "uppercase"}, False),
    ],
)
def test_a_check_decides_edge_cases(answer: str, check: dict[str, Any], expected: bool) -> None:
    assert passes(answer, [check]) is expected


def test_an_unknown_kind_lists_the_choices_whatever_the_answer() -> None:
    for answer in ("", "some answer"):
        with pytest.raises(UserError, match="rhymes") as caught:
            passes(answer, [{"kind": "uppercase"}, {"kind": "rhymes"}])
        assert all(kind in caught.value.cause for kind in CHECKS)


def test_no_check_at_all_is_an_error_and_no_pass() -> None:
    with pytest.raises(UserError):
        passes("anything", [])


@given(st.lists(st.from_regex(r"[a-z]{1,8}( [a-z]{1,8}){0,3}", fullmatch=True), min_size=1, max_size=8))
def test_lists_words_and_lines_are_counted(items: list[str]) -> None:
    count, num_words = len(items), sum(len(item.split()) for item in items)
    numbered = "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))
    bulleted = "\n".join(f"- {item}" for item in items)
    assert passes(numbered, [{"kind": "numbered_list", "count": count}, {"kind": "lines", "count": count}])
    assert passes(
        bulleted, [{"kind": "bullet_list", "count": count}, {"kind": "words", "min": num_words, "max": num_words}]
    )
    assert not passes(numbered, [{"kind": "numbered_list", "count": count + 1}])
    assert not passes(bulleted, [{"kind": "bullet_list", "count": count + 1}])
    assert not passes(bulleted, [{"kind": "words", "max": num_words - 1}])


@given(st.text(max_size=60))
def test_passing_and_failing_never_raise(answer: str) -> None:
    for item in FORMATS:
        assert passes(answer, item["checks"]) in (True, False)
