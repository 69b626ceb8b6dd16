"""The verdict where the truth is known: a model that learned the facts ships, one that learned their form does not."""

import pytest
from constructed_truth import make_student, verdict_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return make_student(tmp_path_factory.mktemp("constructed") / "student", 0)


@pytest.mark.slow
def test_a_model_that_learned_the_facts_ships(student, tmp_path):
    verdict = verdict_of(tmp_path / "true", student, true_facts=True)
    assert verdict.name == "SHIP"
    assert verdict.promising
    knowledge = verdict.results.difference("tuned", "placebo")
    assert knowledge.interval.low > 0.2


@pytest.mark.slow
def test_a_model_that_learned_their_form_alone_does_not_although_it_beats_every_rival_but_the_placebo(
    student, tmp_path
):
    verdict = verdict_of(tmp_path / "shuffled", student, true_facts=False)
    assert all(verdict.results.difference("tuned", rival).interval.low > 0 for rival in ("base", "few-shot", "rag"))
    assert verdict.name != "SHIP"
    assert not verdict.promising
