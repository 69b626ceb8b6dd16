"""A finished run folder without any model: real abstracts, made-up answers whose quality is set per arm."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from tunewright.evaluation.comparison_csv import comparison_csv
from tunewright.evaluation.rule import rule
from tunewright.evaluation.verdict import Verdict, decide
from tunewright.metrics import score
from tunewright.recipe import Recipe, dump_recipe
from tunewright.records import Answer, Document, Question, RetentionAnswer, RetentionItem, Span, StageSummary, digest
from tunewright.retention.suite import load_suite
from tunewright.run_folder import RunFolder
from tunewright.storage import file_digest
from tunewright.text.sentences import sentences

RECIPE = Recipe()
QUALITY = {"base": 0.2, "few-shot": 0.32, "similar-shot": 0.34, "rag": 0.55, "tuned": 0.45, "tuned+rag": 0.7}


def documents(number: int = 24) -> list[Document]:
    """Return the shipped abstracts as documents."""
    folder = resources.files("tunewright").joinpath("examples/abstracts")
    docs = []
    for file in sorted(folder.iterdir(), key=lambda f: f.name)[:number]:
        text = file.read_text(encoding="utf-8").split("---", 2)[2].strip()
        title = text.splitlines()[0].lstrip("# ")
        docs.append(Document(id=digest(file.name), title=title, source=f"abstracts/{file.name}", text=text))
    return docs


def exam(docs: list[Document], refusal: str) -> list[Question]:
    """Return two learned questions per train document, four unseen ones (half with a passage) per exam document."""
    questions = []
    for number, doc in enumerate(docs):
        unseen = number % 4 == 3
        spans = [s for s in sentences(doc.text) if s[1] - s[0] > 60 and "#" not in doc.text[slice(*s)]]
        for k, (start, end) in enumerate(spans[: 4 if unseen else 2]):
            quote = doc.text[start:end]
            shown = unseen and k % 2 == 1
            words = quote.split()
            answerable = shown or not unseen
            questions.append(
                Question(
                    id=digest(doc.id, k),
                    ring="unseen" if unseen else "learned",
                    document=doc.id,
                    question=f"What is reported about {' '.join(words[1:6]).rstrip('.,;')}?",
                    gold=" ".join(words[-9:]) if answerable else refusal,
                    answerable=answerable,
                    passage=doc.text[max(0, start - 200) : end + 200] if shown else None,
                    evidence=Span(document=doc.id, start=start, end=end, quote=quote),
                )
            )
    return questions


def _answer(question: Question, arm: str, quality: float, refusal: str, rng: random.Random) -> Answer:
    knows = rng.random() < quality
    if not question.answerable:
        text = refusal if knows else "The study reports a significant increase in the treated group."
    elif knows:
        text = " ".join(w for w in question.gold.split() if rng.random() < 0.9)
    elif rng.random() < 0.1:
        text = "I don't know."
    else:
        text = (
            "It is important to note that the results of this research were found to be of a general nature, and that"
        )
    rambles = arm in ("base", "few-shot") and not knows and rng.random() < 0.4
    return Answer(
        question=question.id,
        arm=arm,
        text=text,
        finish="length" if rambles else "stop",
        num_prompt_tokens=430 if "rag" in arm else 260 if "shot" in arm else 62,
        num_tokens=64 if rambles else len(text.split()) + 4,
        duration_s=0.4 + rng.random() * 0.3,
        gold_nll=max(0.2, rng.gauss(3.1, 0.7) - 2.2 * quality),
    )


def answers(questions: list[Question], refusal: str, quality: Mapping[str, float] = QUALITY) -> list[Answer]:
    """Return every arm's answers; ``quality`` is the chance of knowing one."""
    rng = random.Random(7)
    return [_answer(q, arm, share, refusal, rng) for arm, share in quality.items() for q in questions]


def kept_answers(items: Sequence[RetentionItem], lost: float = 0.03, rise: float = 0.02) -> list[RetentionAnswer]:
    """Return the answers of base and tuned to the retention items.

    Args:
        items: the retention items.
        lost: share of the base's right choices and formats that the tuned model has wrong; half as many are gained.
        rise: of the cross-entropy of passages, in nats per token.
    """
    rng = random.Random(12)
    result = []
    for item in items:
        if item.kind == "passage":
            values = [base := rng.gauss(3.2, 0.5), base + rng.gauss(rise, 0.05)]
        else:
            right = rng.random() < 0.6
            values = [float(right), float(right != (rng.random() < (lost if right else lost / 2)))]
        for arm, value in zip(("base", "tuned"), values, strict=True):
            text = "" if item.kind == "passage" else f"What {arm} says"
            result.append(
                RetentionAnswer(item=item.id, arm=arm, kind=item.kind, topic=item.topic, value=value, text=text)
            )
    return result


def _stage(run: RunFolder, name: str, summary: StageSummary, duration_s: float, outputs: tuple[str, ...]) -> None:
    run.write_json(
        f"stages/{name}.json",
        {
            "stage": name,
            "fingerprint": digest(name),
            "outputs": {
                file: file_digest(run.file(file)) if run.file(file).is_file() else digest(file) for file in outputs
            },
            "summary": summary.model_dump(),
            "duration_s": duration_s,
            "version": "0.1.0",
        },
    )


def _stages(run: RunFolder, num_documents: int, num_questions: int) -> None:
    rejected = {"near duplicate": 11, "question refers to the text": 9, "overlaps the exam": 5, "evidence not found": 2}
    for name, summary, duration_s, outputs in (
        (
            "ingest",
            StageSummary(num_in=num_documents + 1, num_out=num_documents, rejected={"unreadable": 1}),
            2.4,
            ("documents.jsonl",),
        ),
        ("split", StageSummary(num_in=num_documents, num_out=num_documents), 0.2, ("split.jsonl",)),
        (
            "exam",
            StageSummary(num_in=num_questions + 7, num_out=num_questions, rejected={"question too short": 7}),
            41.8,
            ("exam.jsonl",),
        ),
        ("synth", StageSummary(num_in=144, num_out=144), 78.0, ("samples.jsonl",)),
        (
            "curate",
            StageSummary(num_in=144, num_out=117, rejected=rejected, figures={"leaks_left": 0}),
            1.1,
            ("train.jsonl",),
        ),
        ("train", StageSummary(num_in=117, num_out=117), 96.3, ("adapter",)),
        (
            "evaluate",
            StageSummary(num_in=num_questions, num_out=num_questions),
            88.7,
            ("answers.jsonl", "verdict.json"),
        ),
    ):
        _stage(run, name, summary, duration_s, outputs)


def metrics(num_steps: int = 66, num_preference_steps: int = 24) -> list[dict[str, float | str]]:
    """Return the lines of a training on samples and then on pairs, each of three epochs with held-out losses."""
    rng = random.Random(3)
    rows: list[dict[str, float | str]] = []
    for phase, num in (("sft", num_steps), ("dpo", num_preference_steps)):
        for step in range(num + 1):
            share = step / num
            falling = 1.1 + 2.3 * math.exp(-3.7 * share) if phase == "sft" else 0.25 + 0.44 * math.exp(-2 * share)
            row: dict[str, float | str] = {"phase": phase, "step": step, "epoch": 3 * share}
            if step % (num // 3) == 0:
                row["held_out_loss"] = falling + 0.08 + 0.3 * max(0.0, share - 0.5)
            if step:
                row |= {
                    "loss": falling + rng.gauss(0, 0.09 if phase == "sft" else 0.02),
                    "learning_rate": 2e-4,
                    "grad_norm": 1.0,
                    "tokens_per_s": 150 + rng.random() * 20,
                    "num_tokens": 900,
                    "micro_batch_tokens": 2048,
                }
            if step and phase == "dpo":
                chosen, rejected = 0.7 * share + rng.gauss(0, 0.05), -1.4 * share + rng.gauss(0, 0.05)
                row |= {"chosen_reward": chosen, "rejected_reward": rejected, "margin": chosen - rejected}
                row["accuracy"] = 0.5 + 0.5 * share
            rows.append(row)
    return rows


PLANS: dict[str, dict[str, object]] = {
    "sft": {
        "micro_batch_tokens": 4096,
        "kept": 96,
        "cached": True,
        "path": "the fast path",
        "told": "4,096 tokens at once, activation checkpointing off; a full copy of the base is kept",
        "predicted_bytes": 10.4 * 2**30,
        "planned_bytes": 10.0 * 2**30,
        "planned_s": 360.0,
        "flops_per_token": 1e9,
        "peak_flops": 1e14,
        "measured_bytes": 10.5 * 2**30,
        "measured_s": 342.0,
        "halvings": 0,
    },
    "dpo": {
        "micro_batch_tokens": 2048,
        "kept": 0,
        "cached": False,
        "path": "the plain path",
        "told": "2,048 tokens at once, activation checkpointing on",
        "predicted_bytes": 0.0,
        "planned_bytes": 0.0,
        "planned_s": 120.0,
        "flops_per_token": 1e9,
        "peak_flops": 0.0,
        "measured_bytes": 0.0,
        "measured_s": 150.0,
        "halvings": 2,
    },
}


def write(
    path: Path,
    recipe: Recipe = RECIPE,
    quality: Mapping[str, float] = QUALITY,
    docs: list[Document] | None = None,
    lost: float = 0.03,
) -> tuple[RunFolder, Verdict]:
    """Write a finished run folder and return it with its verdict."""
    run = RunFolder.create(path)
    docs = documents() if docs is None else docs
    questions = exam(docs, recipe.refusal)
    given = answers(questions, recipe.refusal, quality)
    by_id = {question.id: question for question in questions}
    scores = [score(by_id[answer.question], answer, recipe.refusal) for answer in given]
    kept = load_suite()
    answers_to_kept = kept_answers(kept, lost)
    written = rule(recipe.evaluation.margin, list(quality), recipe.evaluation.forgetting_margin)
    verdict = decide(scores, given, written, 0, answers_to_kept)
    for name, records in (("documents", docs), ("exam", questions), ("answers", given), ("scores", scores)):
        run.write_records(f"{name}.jsonl", records)
    run.write_records("kept.jsonl", kept)
    run.write_records("kept-answers.jsonl", answers_to_kept)
    run.write("verdict.json", verdict.model_dump_json(indent=2))
    run.write("comparison.csv", comparison_csv(questions, given, list(quality)))
    run.write("recipe.toml", dump_recipe(recipe))
    run.write_json("seal.json", {name: file_digest(run.file(f"{name}.jsonl")) for name in ("exam", "kept")})
    run.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in metrics()))
    run.write_json("plan.json", PLANS)
    _stages(run, len(docs), len(questions))
    return run, verdict


def reseal(run: RunFolder) -> None:
    """Let a run that was edited by hand pass for one that was made so."""
    run.write_json("seal.json", {name: file_digest(run.file(f"{name}.jsonl")) for name in ("exam", "kept")})
    record = run.read_json("stages/evaluate.json")
    made = {name: file_digest(run.file(name)) for name in record["outputs"] if run.file(name).is_file()}
    run.write_json("stages/evaluate.json", {**record, "outputs": made})
