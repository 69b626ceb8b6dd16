"""Times the answers to the exam: all arms on 200 questions of the embedded model, a rerun, one more arm, and singly.

    python benchmarks/all_arms.py RUN [--questions 200] [-o FILE]

RUN is a finished run folder of the demo (tunewright demo --dir RUN). Its exam is filled up to this number with the
questions of its samples and documents: timing needs questions of real lengths, not sealed ones. Answers are generated in
a copy; RUN is not touched. For the ratio, ``together`` questions are answered again by every arm in batches, and ``alone``
of them one at a time; both include the time to load the model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

NEEDED = ("recipe.toml", "train.jsonl", "chunks.jsonl", "split.jsonl", "kept.jsonl")


def questions_of(run: Any, number: int) -> list[Any]:
    """Return that many questions: the exam's, the samples', and three for each document."""
    from tunewright.records import Document, Question, Sample, digest

    questions = list(run.read_records("exam.jsonl", Question))

    def add(text: str, gold: str, document: str) -> None:
        name = digest("timing", text)
        questions.append(
            Question(id=name, ring="learned", document=document, question=text, gold=gold, answerable=True)
        )  # fmt: skip

    for sample in run.read_records("samples.jsonl", Sample):
        add(sample.question, sample.answer, sample.document or "none")
    for document in run.read_records("documents.jsonl", Document):
        add(f"What was found in: {document.title}?", document.text[:80], document.id)
        add(f"Who was studied in: {document.title}?", document.text[80:160], document.id)
        add(f"Where was this done: {document.title}?", document.text[160:240], document.id)
    questions = list({question.question + (question.passage or ""): question for question in questions}.values())
    if len(questions) < number:
        raise SystemExit(f"the run gives {len(questions)} questions, not {number}")
    return questions[:number]


def copy_of(run: Any, folder: Path) -> Any:
    from tunewright.run_folder import RunFolder

    fresh = RunFolder.create(folder)
    for name in NEEDED:
        shutil.copy(run.file(name), fresh.file(name))
    shutil.copytree(run.file("adapter"), fresh.file("adapter"))
    return fresh


def answered(run: Any) -> dict[str, Any]:
    from tunewright.run_folder import RunFile

    outputs: dict[str, Any] = {}
    for entry in run.journal(RunFile.ANSWERS_JOURNAL).entries if run.file(RunFile.ANSWERS_JOURNAL).exists() else ():
        outputs |= entry["outputs"]
    return outputs


def timed(run: Any, recipe: Any, questions: Any, arms: tuple[str, ...], items: Any = ()) -> dict[str, Any]:
    """Answer; return the seconds, model loading included, and how many answers were generated."""
    from tunewright.evaluation.answering import all_answers
    from tunewright.evaluation.arms import num_passages, passages_by_arm, shots_by_arm
    from tunewright.evaluation.stage import read_library, read_training_samples, sentence_model, weights_by_arm
    from tunewright.run_folder import RunFile

    before = len(answered(run))
    began = time.perf_counter()
    model = sentence_model(run, recipe)
    shots = shots_by_arm(read_training_samples(run, recipe), recipe.evaluation.few_shot, recipe.seed, model)
    library = read_library(run, recipe, model)
    passages = passages_by_arm(library, num_passages(library, questions, recipe.retrieval.passages)) if library else {}
    journal, weights = run.journal(RunFile.ANSWERS_JOURNAL), weights_by_arm(run, recipe, arms)
    all_answers(journal, recipe, questions, weights, items, shots, passages)
    return {"seconds": round(time.perf_counter() - began, 1), "generated": len(answered(run)) - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--together", type=int, default=24)
    parser.add_argument("--alone", type=int, default=8)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/all_arms.json"))
    options = parser.parse_args()
    from tunewright.evaluation import generation
    from tunewright.models.loading import pick_device, quiet_libraries
    from tunewright.recipe import load_recipe
    from tunewright.records import RetentionItem
    from tunewright.run_folder import RunFolder

    quiet_libraries()
    source = RunFolder.open(options.run)
    recipe = load_recipe(source.file("recipe.toml"))
    questions, items = questions_of(source, options.questions), source.read_records("kept.jsonl", RetentionItem)
    arms = ("base", "few-shot", "rag", "tuned", "tuned+rag")
    with tempfile.TemporaryDirectory() as name:
        run = copy_of(source, Path(name) / "run")
        figures: dict[str, Any] = {"device": pick_device(), "cores": len(os.sched_getaffinity(0))}
        figures |= {"questions": len(questions), "arms": list(arms)}
        figures["all_but_rag"] = timed(run, recipe, questions, tuple(arm for arm in arms if arm != "rag"))
        figures["rag_added"] = timed(run, recipe, questions, arms)
        figures["minutes_all_arms"] = round(
            (figures["all_but_rag"]["seconds"] + figures["rag_added"]["seconds"]) / 60, 2
        )
        figures["third_ring_added"] = timed(run, recipe, questions, arms, items)
        figures["rerun"] = timed(run, recipe, questions, arms, items)
        options.output.write_text(json.dumps(figures, indent=2) + "\n")
        together = copy_of(source, Path(name) / "together")
        batched = timed(together, recipe, questions[: options.together], arms)
        few = questions[: options.alone]
        alone = copy_of(source, Path(name) / "alone")
        generation.BATCH_SIZE[pick_device().partition(":")[0]] = 1
        single = timed(alone, recipe, few, arms)
        figures["one_batch"], figures["one_at_a_time"] = batched, single
        rates = [timing["seconds"] / timing["generated"] for timing in (batched, single)]
        figures["times_faster"] = round(rates[1] / rates[0], 2)
        options.output.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
