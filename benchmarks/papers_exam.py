"""Does the exam of the papers demo see what the right passage brings, and does a search lie between?

    python benchmarks/papers_exam.py [--per-document 8] [--listed | --forms | --preview] [--work DIR] [-o FILE]

The recipe is that of `tunewright demo papers` with more questions on each training document, so that each kind of
question alone shows a difference. Rules write and seal them as in the demo; base, rag and oracle answer, without any
training. The record holds each kind's scores, the paired differences, and the report's sentences on what is lost in
retrieval and in reading. With --listed, the options of a choice are listed below its question and the answer has to name
one, as before: beside the other record, it shows what naming costs. With --forms, the choices alone are scored by the
likelihood of their options in four forms, without the demo's system prompt. With --preview, `tunewright preview` runs on the
demo's own recipe, in a fresh folder, and its processor time is recorded. About four minutes on two idle cores each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewright import environment, pipeline
from tunewright.commands.init import papers_demo
from tunewright.commands.preview import preview
from tunewright.evaluation.answering import all_answers
from tunewright.evaluation.arms import Library, num_passages, passages_by_arm, recall
from tunewright.evaluation.measurement import paired_difference
from tunewright.evaluation.retention import answer_items, item_tokens, retention_answer
from tunewright.evaluation.stage import read_library, sentence_model
from tunewright.metrics import score
from tunewright.models.chat_template import question_prompt
from tunewright.models.loading import quiet_libraries
from tunewright.models.model_pool import ModelPool, ModelWeights
from tunewright.recipe import Recipe
from tunewright.records import Question, RetentionItem, Score
from tunewright.reporting.sections import reading_and_retrieval
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.statistics.intervals import mean_interval
from tunewright.text.choices import gold_of, listed, option_text

RESULTS = Path(__file__).parent / "results" / "papers_exam.json"
ARMS = (Arm.BASE, Arm.RAG, Arm.ORACLE)
PAIRS = ((Arm.ORACLE, Arm.BASE), (Arm.RAG, Arm.BASE), (Arm.ORACLE, Arm.RAG))


def with_options_listed(question: Question) -> Question:
    """Return a choice with its options listed below it; any other question unchanged."""
    if not question.options:
        return question
    text = listed(question.question, question.options)
    gold = gold_of(text, question.options, question.options.index(question.gold))
    return question.model_copy(update={"question": text, "gold": gold})


def rounded(interval: Any) -> list[float]:
    return [round(value, 3) for value in (interval.mean, interval.low, interval.high)]


def of_kind(scores: Sequence[Score], questions: Mapping[str, Question], kind: str) -> dict[str, Any]:
    """Return the scores of each arm on a kind of question, and their paired differences."""
    by_arm = {
        arm: {s.question: s for s in scores if s.arm == arm and kind in (questions[s.question].kind, "all")}
        for arm in ARMS
    }
    differences = {
        f"{first} - {second}": paired_difference(
            by_arm[first], by_arm[second], lambda row: row.primary, "primary", 0.95
        )
        for first, second in PAIRS
    }
    own = [score for arm in ARMS for score in by_arm[arm].values()]
    return {
        "questions": len(by_arm[Arm.BASE]),
        "scores": {
            arm: rounded(
                mean_interval([s.primary for s in by_arm[arm].values()], [s.document for s in by_arm[arm].values()])
            )
            for arm in ARMS
        },
        "differences": {name: rounded(d.interval) for name, d in differences.items() if d},
        "report": reading_and_retrieval(list(questions.values()), own) if kind == "all" else [],
    }


def exam_of(per_document: int, work: Path) -> tuple[RunFolder, Recipe, list[Question]]:
    """Write the demo's exam with so many questions on each training document; return its run, recipe and questions."""
    demo = papers_demo()
    exam = demo.exam.model_copy(update={"learned_per_document": per_document, "unseen_per_document": 0})
    recipe = demo.model_copy(update={"exam": exam})
    run = pipeline.run(recipe, work, until="exam")
    return run, recipe, run.read_records(RunFile.EXAM, Question)


def measure(per_document: int, work: Path, options_listed: bool) -> dict[str, Any]:
    """Answer the exam with the three arms, and return what each kind of question shows."""
    run, recipe, questions = exam_of(per_document, work)
    if options_listed:
        questions = [with_options_listed(question) for question in questions]
    library = library_of(run, recipe)
    passages = passages_by_arm(library, num_passages(library, questions, recipe.retrieval.passages))
    began, weights = time.process_time(), dict.fromkeys(ARMS, ModelWeights.of(recipe))
    answers, _ = all_answers(run.journal(RunFile.ANSWERS_JOURNAL), recipe, questions, weights, passages=passages)
    cpu_s = time.process_time() - began
    known = {question.id: question for question in questions}
    scores = [score(known[answer.question], answer, recipe.refusal) for answer in answers]
    return {
        "documents": len({question.document for question in questions}),
        "recall_by_passages": {str(depth): round(share, 3) for depth, share in recall(library, questions)[1].items()},
        "kinds": {kind: of_kind(scores, known, kind) for kind in ("short", "choice", "all")},
        "cpu_s": round(cpu_s, 1),
    }


def library_of(run: RunFolder, recipe: Recipe) -> Library:
    library = read_library(run, recipe, sentence_model(run, recipe))
    assert library is not None
    return library


def forms(per_document: int, work: Path) -> dict[str, Any]:
    """Return the share of choices right by likelihood per character, for each form of question and options."""
    run, recipe, questions = exam_of(per_document, work)
    library, choices = library_of(run, recipe), [question for question in questions if question.options]
    letters = "ABCD"
    asked = {
        "listed, the letter": lambda q: (listed(q.question, q.options), tuple(letters)),
        "listed, letter and text": lambda q: (
            listed(q.question, q.options),
            tuple(option_text(q.options, index) for index in range(4)),
        ),
        "listed, the text": lambda q: (listed(q.question, q.options), q.options),
        "not listed, the text": lambda q: (q.question, q.options),
    }
    passages = {Arm.BASE: lambda q: [], Arm.ORACLE: passages_by_arm(library, 1)[Arm.ORACLE]}
    weights, pool = ModelWeights.of(recipe), ModelPool()
    right: dict[str, dict[str, float]] = {}
    with pool.holding(weights) as model:
        for form, ask in asked.items():
            for arm, shown in passages.items():
                items = []
                for question in choices:
                    text, options = ask(question)
                    items.append(
                        RetentionItem(id=question.id, kind="choice", topic="", text=question_prompt(text, shown(question)),
                                      options=options, right=question.options.index(question.gold))
                    )  # fmt: skip
                tokens = [item_tokens(item, pool.tokenizer(weights)) for item in items]
                batches = (tokens[start : start + 12] for start in range(0, len(tokens), 12))
                outputs = [o for batch in batches for o in answer_items(pool.tokenizer(weights), batch, model, [])]
                values = [retention_answer(i, arm, o).value for i, o in zip(items, outputs, strict=True)]
                right.setdefault(form, {})[arm] = round(sum(values) / len(values), 3)
    return {"questions": len(choices), "right": right}


def previewed(work: Path) -> dict[str, Any]:
    """Return what the preview of the demo says, and how long it took; half of the processor time is two idle cores'."""
    if work.exists():
        raise SystemExit(f"{work} exists: a preview that continues takes no time")
    began, passed = time.process_time(), time.monotonic()
    result = preview(papers_demo(), work)
    return {
        "processor_s": round(time.process_time() - began, 1),
        "passed_s": round(time.monotonic() - passed, 1),
        "questions": result.num_questions,
        "documents": result.num_documents,
        "advice": result.advice,
        "best": result.best,
        "left_to_gain": rounded(result.left),
        "oracle_minus_best": rounded(result.gap) if result.gap else None,
        "scores": {row.arm: rounded(row.score) for row in result.arms},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-document", type=int, default=8)
    parser.add_argument("--listed", action="store_true", help="list the options; the answer has to name one")
    parser.add_argument("--forms", action="store_true", help="score the choices by likelihood in four forms")
    parser.add_argument("--preview", action="store_true", help="time the preview of the demo")
    parser.add_argument("--work", type=Path, default=Path("build/papers-exam"), help="run folder")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    quiet_libraries()
    record = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    part = "options listed, the answer names one" if options.listed else "as the demo asks"
    if options.forms:
        part, result = "forms of a choice, by likelihood", forms(options.per_document, options.work)
    elif options.preview:
        part, result = "preview of the demo", previewed(options.work)
    else:
        result = measure(options.per_document, options.work, options.listed)
    record |= {
        "command": f"python benchmarks/papers_exam.py --per-document {options.per_document} [--listed | --forms | --preview]",
        "versions": environment.versions(),
        "machine": environment.machine(),
        part: result,
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
