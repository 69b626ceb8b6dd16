import itertools
import random

import pytest

from tunewright.curation.deduplication import (
    Duplicates,
    _Buckets,
    _Parts,
    _StoredParts,
    contradicted_prompts,
    hashed,
    prompt_key,
    signed_words,
)
from tunewright.recipe import Recipe
from tunewright.records import Message, Sample
from tunewright.text.normalization import jaccard, runs

QUESTION = "Which share of the adults in the three communities of the region had an ulcer of the skin?"
ANSWER = "In the three communities, 31.9 % of the adults who were screened had an ulcer of the skin."
PASSAGE = " ".join(f"word{number}" for number in range(150))


def sample(name: str, *turns: str, system: str = "") -> Sample:
    messages = [Message(role=("user", "assistant")[n % 2], content=turn) for n, turn in enumerate(turns)]
    head = [Message(role="system", content=system)] if system else []
    return Sample(id=name, task="free-qa", messages=(*head, *messages))


FIRST = sample("first", QUESTION, ANSWER, system="Be brief.")


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (sample("b", QUESTION, ANSWER, system="Be brief."), "exact duplicate"),
        (sample("b", QUESTION.upper() + " ", ANSWER, system="be  brief."), "exact duplicate"),
        (sample("b", QUESTION.replace("Which", "What"), ANSWER, system="Be brief."), "near duplicate"),
        (sample("b", QUESTION, ANSWER.replace("31.9", "13.9"), system="Be brief."), "near duplicate"),
        (sample("b", QUESTION, ANSWER, system="Answer from the passage."), None),
        (sample("b", QUESTION, ANSWER), None),
        (sample("b", f"{PASSAGE}\n\n{QUESTION}", ANSWER, system="Be brief."), None),
        (sample("b", "Hello there.", "Good day.", QUESTION, ANSWER, system="Be brief."), None),
        (sample("b", QUESTION, "The documents do not say.", system="Be brief."), None),
        (sample("b", "Where was the screening of the adults done?", ANSWER, system="Be brief."), None),
    ],
)
def test_what_repeats_the_first_sample(second, expected):
    seen = Duplicates(0.7)
    assert seen.find(seen.traits(FIRST)) is None
    repeated = seen.find(seen.traits(second))
    assert repeated == ((expected, "first") if expected else None)


def test_a_passage_with_many_questions_is_no_repetition():
    seen = Duplicates(0.8)
    for topic in ("the price", "the place", "the year", "the author"):
        assert (
            seen.find(seen.traits(sample(topic, f"{PASSAGE}\n\nWhat is {topic} of it?", f"Here is {topic}."))) is None
        )


def test_a_long_question_with_different_short_answers_is_no_repetition():
    seen = Duplicates(0.8)
    assert [seen.find(seen.traits(sample(answer, f"{PASSAGE} ?", answer))) for answer in ("12%", "15%", "-12%")] == [
        None
    ] * 3


def test_the_passage_in_almost_the_same_words_is_a_repetition():
    seen = Duplicates(0.8)
    assert seen.find(seen.traits(sample("a", f"{PASSAGE}\n\n{QUESTION}", ANSWER))) is None
    assert seen.find(seen.traits(sample("b", f"{PASSAGE} end\n\n{QUESTION}", ANSWER))) == ("near duplicate", "a")


def test_the_index_finds_what_comparing_all_pairs_finds():
    random.seed(7)
    vocabulary = [f"w{number}" for number in range(400)]
    samples = []
    for number in range(150):
        words = random.choices(vocabulary, k=60)
        for copy in range(2):
            words[random.randrange(20)] = "changed"
            samples.append(sample(f"{number}.{copy}", " ".join(words[:20]) + "?", " ".join(words[20:])))
    random.shuffle(samples)
    seen = Duplicates(0.8)
    repeated = {item.id for item in samples if seen.find(seen.traits(item))}
    kept: list[frozenset[tuple[bytes, ...]]] = []
    expected = set()
    for item in samples:
        mine = frozenset(runs(signed_words(f"{item.question}\n{item.answer}"), 2))
        if any(jaccard(mine, other) >= 0.8 for other in kept):
            expected.add(item.id)
        else:
            kept.append(mine)
    assert len(expected) > 100 and repeated == expected


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_every_threshold_of_the_recipe_works(threshold):
    seen = Duplicates(threshold)
    assert seen.find(seen.traits(FIRST)) is None
    assert seen.find(seen.traits(FIRST)) == ("exact duplicate", "first")


def test_text_without_words_is_compared_as_it_stands():
    seen = Duplicates(0.8)
    assert [seen.find(seen.traits(sample(text, text, text))) for text in ("!", "?", "日本語", "+ -")] == [None] * 4


def test_a_refused_prompt_that_is_answered_elsewhere_is_known():
    recipe = Recipe()
    refused = sample("r", QUESTION, recipe.refusal, system="Be brief.")
    other = sample("o", "Who?", recipe.refusal)
    contradicted = contradicted_prompts([refused, FIRST, other], recipe.refusal)
    assert prompt_key(refused) in contradicted and prompt_key(other) not in contradicted


def test_chained_buckets_hold_what_a_dictionary_of_lists_holds():
    draw = random.Random(3)
    buckets, lists = _Buckets(), {}
    for number in range(3000):  # grows twice
        key = draw.choice([draw.getrandbits(64), draw.getrandbits(3), draw.getrandbits(3) << 40])
        keys = [key, draw.getrandbits(64)]
        buckets.add(number, keys)
        for own in dict.fromkeys(keys):
            lists.setdefault(own, []).append(number)
    assert {key: buckets.numbers([key]) for key in lists} == lists
    assert buckets.numbers([0, 1, 2**63 + 5]) == sorted({*lists[0], *lists[1]})


def test_stored_parts_come_back_and_a_shared_context_is_stored_once():
    context = hashed(signed_words("A passage that many samples show, with many words in it. " * 3)).tobytes()
    texts = [(f"answer {n}", f"question {n} answer {n}", "", f"{n}") for n in range(50)]
    hashes = [[hashed(signed_words(text)).tobytes() for text in own] for own in texts]
    every = [_Parts(answer, exchange, context, none, alone) for answer, exchange, none, alone in hashes]
    stored = _StoredParts()
    for parts in every:
        stored.add(parts)
    for number, parts in enumerate(every):
        assert list(parts) == [its.tobytes() for its in stored.parts(number)]
    assert len(stored._hashes) == (sum(map(len, itertools.chain(*every))) - 49 * len(context)) // 4
