"""A run's index: its vectors are kept in the run, its models are part of the evaluation's fingerprint."""

from support.sentence_models import make_sentence_model
from support.tiny import make_reward_model
from tunewright.evaluation.stage import read_library, sentence_model
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Question, SplitEntry
from tunewright.run_folder import RunFile, RunFolder
from tunewright.stages import sentence_model_identity

TEXTS = ("group nine had twelve members", "the old collection was short", "a glacier of the old group")


def test_a_second_evaluation_embeds_no_passage_and_reranks_as_the_recipe_says(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    spans = [
        Chunk(id=f"c{n}", document="d", title="", section=(), start=0, end=len(text), text=text, num_tokens=5)
        for n, text in enumerate(TEXTS)
    ]
    run.write_records(RunFile.CHUNKS, spans)
    run.write_records(RunFile.SPLIT, [SplitEntry(document="d", side="train", group="d")])
    question = Question(id="q", ring="unseen", document="d", question="the old group", gold="", answerable=True)
    retrieval = {"model": str(make_sentence_model(tmp_path / "vectors"))}
    recipe = Recipe(retrieval=retrieval)
    library = read_library(run, recipe, sentence_model(run, recipe))
    found = library.retrieved(question, 3)
    assert found[0].text == TEXTS[2]
    written = run.file(RunFile.VECTORS).stat().st_mtime_ns
    library = read_library(run, recipe, sentence_model(run, recipe))
    assert library.retrieved(question, 3) == found and run.file(RunFile.VECTORS).stat().st_mtime_ns == written

    reranking = Recipe(retrieval={**retrieval, "reranker": str(make_reward_model(tmp_path / "reranker"))})
    reranked = read_library(run, reranking, sentence_model(run, reranking)).retrieved(question, 3)
    assert {chunk.id for chunk in reranked} == {"c0", "c1", "c2"}
    assert sentence_model_identity(reranking).startswith(sentence_model_identity(recipe))
    assert sentence_model_identity(reranking) != sentence_model_identity(recipe)
