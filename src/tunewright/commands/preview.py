"""The command preview: what training can bring at most, from the arms that need none, before any is paid for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunewright import console, pipeline
from tunewright.commands.json_documents import ArmPreview, Preview, PreviewDocument
from tunewright.errors import UserError, command
from tunewright.evaluation.answering import all_answers
from tunewright.evaluation.arms import Library, num_passages, passages_by_arm, shots_by_arm
from tunewright.evaluation.measurement import paired_difference
from tunewright.evaluation.stage import read_library, sentence_model
from tunewright.metrics import score
from tunewright.models.chat_template import chat
from tunewright.models.model_pool import ModelWeights
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import Answer, Chunk, Document, Question, Sample, Score, SplitEntry, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm
from tunewright.statistics.intervals import Interval, mean_interval, number, plain, spread
from tunewright.statistics.power import LEAST_DOCUMENTS, LEAST_QUESTIONS
from tunewright.synthesis.questions import chunks_by_document, ranked_evidence
from tunewright.synthesis.rule_questions import RuleKind, RuleWriter
from tunewright.text.languages import document_languages

_MOST_QUESTIONS = 40
_PROMPTED = (Arm.FEW_SHOT, Arm.SIMILAR_SHOT)


def preview(recipe: Recipe, folder: Path) -> Preview:
    """Answer exploratory questions with the arms that need no training; print and write what is left to gain.

    The questions are no part of the exam: rules write them from sentences of the training documents that no exam
    question rests on, or they are chats of the training set. After a stop the same call continues from its journal.

    Raises:
        UserError: there is nothing to ask.
        StageError: an earlier stage failed.
    """
    own = bool(recipe.synthesis.data) and not recipe.documents.paths
    run = pipeline.run(recipe, folder, until="curate" if own else "exam")
    recipe = load_recipe(run.file(RunFile.RECIPE))
    with run.lock():
        model = sentence_model(run, recipe)
        library = read_library(run, recipe, model)
        questions, pool = _of_chats(run, recipe) if own else _of_documents(run, recipe)
        if not questions:
            raise UserError(
                "there is nothing to preview",
                "the training chats have no exchange to ask" if own else "no sentence beside the exam states a value",
                f"run the recipe itself: {command('run', run.file(RunFile.RECIPE))}",
            )
        shots = shots_by_arm(pool, recipe.evaluation.few_shot, recipe.seed, model)
        arms = _arms(recipe, bool(shots), library)
        num_shown = num_passages(library, questions, recipe.retrieval.passages)
        passages = passages_by_arm(library, num_shown) if library else {}
        weights = dict.fromkeys(arms, ModelWeights.of(recipe))
        journal = run.journal(RunFile.PREVIEW_JOURNAL)
        answers = all_answers(journal, recipe, questions, weights, shots=shots, passages=passages)[0]
        known = {question.id: question for question in questions}
        scores = [score(known[answer.question], answer, recipe.refusal) for answer in answers]
        result = summarize(scores, answers, recipe.evaluation.margin, recipe.model.base)
        run.write(RunFile.PREVIEW, result.model_dump_json(indent=2) + "\n")
    _show(result, run, recipe)
    return result


def preview_document(recipe: Recipe, folder: Path) -> PreviewDocument:
    """Return the preview for programs; see ``preview``."""
    result, run = preview(recipe, folder), RunFolder(folder)
    following = command("run", run.file(RunFile.RECIPE), "--dir", run.path)
    return PreviewDocument(folder=str(run.path), preview=result, next=following)


def _of_documents(run: RunFolder, recipe: Recipe) -> tuple[list[Question], list[Sample]]:
    """Return rule-written questions on training documents, and as many more as worked examples."""
    rings = {entry.document for entry in run.read_records(RunFile.SPLIT, SplitEntry) if entry.side == "train"}
    documents = [d for d in run.read_records(RunFile.DOCUMENTS, Document) if d.id in rings]
    chunks = chunks_by_document(run.read_records(RunFile.CHUNKS, Chunk))
    used = {q.evidence.quote for q in run.read_records(RunFile.EXAM, Question) if q.evidence}
    evidence = {
        d.id: [e for e in ranked_evidence(d, chunks.get(d.id, ()), recipe.seed + 1) if e.span.quote not in used]
        for d in documents
    }
    languages = document_languages({document.id: document.text for document in documents})
    writer = RuleWriter(evidence, recipe.seed + 1, languages, with_words=set(evidence))
    written: list[tuple[bool, Question]] = []
    for document in documents:
        for index, item in enumerate(evidence[document.id]):
            kind: RuleKind = "choice" if index % 2 else "short"
            drafts = ((words_too, writer.write(kind, document, item, words_too)) for words_too in (False, True))
            of_word, draft = next((pair for pair in drafts if pair[1]), (True, None))
            if draft is not None:
                written.append((of_word, draft.beside_the_exam("preview", document.id)))
    # As in the exam, a document's values come before its words.
    ordered = [question for _, question in sorted(written, key=lambda pair: (pair[0], pair[1].id))]
    questions, rest = ordered[:_MOST_QUESTIONS], ordered[_MOST_QUESTIONS : 3 * _MOST_QUESTIONS]
    if len(rest) < recipe.evaluation.few_shot:  # few documents: two thirds are asked, the others are the examples
        cut = len(ordered) * 2 // 3
        questions, rest = ordered[:cut], ordered[cut:]
    return questions, [_as_sample(question, recipe.system_prompt) for question in rest]


def _as_sample(question: Question, system_prompt: str) -> Sample:
    messages = chat(system_prompt, question.question, answer=question.gold)
    return Sample(id=question.id, task="preview", messages=messages, document=question.document)


def _of_chats(run: RunFolder, recipe: Recipe) -> tuple[list[Question], list[Sample]]:
    """Return chats of the training set as questions, and the others as worked examples."""
    samples = sorted(run.read_records(RunFile.TRAIN, Sample), key=lambda sample: digest("preview", sample.id))
    single = [s for s in samples if [m.role for m in s.messages if m.role != "system"] == ["user", "assistant"]]
    chosen = single[: min(_MOST_QUESTIONS, len(single) // 3)]
    questions = [
        Question(
            id=digest("preview", sample.id),
            ring="learned",
            document=sample.document or sample.id,
            question=sample.question,
            gold=sample.answer,
            answerable=sample.answer != recipe.refusal,
        )
        for sample in chosen
    ]
    taken = {sample.id for sample in chosen}
    return questions, [sample for sample in samples if sample.id not in taken]


def _arms(recipe: Recipe, has_shots: bool, library: Library | None) -> list[str]:
    arms: list[str] = [Arm.BASE, *(_PROMPTED if has_shots else ())]
    arms += [Arm.RAG, Arm.ORACLE] if library else []
    return [arm for arm in arms if arm in recipe.evaluation.arms or arm in (Arm.BASE, Arm.ORACLE)]


def summarize(scores: Sequence[Score], answers: Sequence[Answer], margin: float, base: str) -> Preview:
    """Return the preview of scored answers of a base; ``margin`` is the smallest difference worth having."""
    by_arm: dict[str, dict[str, Score]] = {}
    for row in scores:
        by_arm.setdefault(row.arm, {})[row.question] = row
    intervals = {arm: _interval([row.primary for row in own.values()], own) for arm, own in by_arm.items()}
    best = max((arm for arm in by_arm if arm != Arm.ORACLE), key=lambda arm: intervals[arm].mean)
    top = intervals[best]
    left = top.model_copy(update={"mean": 1 - top.mean, "low": 1 - top.high, "high": 1 - top.low})
    gap = _difference(by_arm, Arm.ORACLE, best)
    num_documents = len({row.document for row in by_arm[best].values()})
    few = len(by_arm[best]) < LEAST_QUESTIONS or num_documents < LEAST_DOCUMENTS
    return Preview(
        advice=_advice(best, left, gap, _difference(by_arm, best, Arm.BASE), margin, few),
        num_questions=len(by_arm[best]),
        num_documents=num_documents,
        arms=tuple(
            ArmPreview(
                arm=arm,
                score=intervals[arm],
                num_prompt_tokens=_mean([a.num_prompt_tokens for a in answers if a.arm == arm]),
                duration_s=_mean([a.duration_s for a in answers if a.arm == arm]),
            )
            for arm in by_arm
        ),
        best=best,
        left=left,
        gap=gap,
        base=base,
    )


def _interval(values: Sequence[float], own: Mapping[str, Score]) -> Interval:
    return mean_interval(values, [row.document for row in own.values()])


def _difference(by_arm: Mapping[str, Mapping[str, Score]], first: str, second: str) -> Interval | None:
    if first not in by_arm or second not in by_arm or first == second:
        return None
    difference = paired_difference(by_arm[first], by_arm[second], lambda row: row.primary, "primary", 0.95)
    return difference.interval if difference else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _advice(
    best: str, left: Interval, gap: Interval | None, over_base: Interval | None, margin: float, few: bool
) -> str:
    """Return one sentence; the order of the cases is that of the table in docs/preview.md."""
    if few:
        return "Too few documents to tell: the questions do not reach the number that a verdict asks for."
    gains = over_base is not None and over_base.low > 0
    if best == Arm.RAG and gains and gap is not None and gap.high < margin:
        return "Retrieval already does it: what it reaches is within the margin of the right passage itself."
    if best in _PROMPTED and gains and left.high < margin:
        return "A prompt already does it: less than the margin is left to gain."
    if left.high < margin:
        return "The base already does it: less than the margin is left to gain."
    return "Worth trying: the rivals that need no training leave more than the margin."


def _show(result: Preview, run: RunFolder, recipe: Recipe) -> None:
    rows = [
        [row.arm, number(row.score.mean), spread(row.score), f"{row.num_prompt_tokens:,.0f}", f"{row.duration_s:.2f} s"]
        for row in result.arms
    ]
    console.table("preview", ["arm", "score", "95% interval", "prompt tokens", "per answer"], rows)
    console.line(f"  {result.num_questions} questions on {result.num_documents} documents; none is in the exam")
    console.line(f"  best without training: {result.best}; at most {number(result.left.mean)} is left to gain "
                 f"(95% interval {number(result.left.low)} to {number(result.left.high)})")  # fmt: skip
    if result.gap is not None:
        console.line(f"  the right passage against it: {plain(result.gap)} (oracle − {result.best})")
    console.line(f"  {result.advice}")
    console.line(f"next: {command('run', run.file(RunFile.RECIPE), '--dir', run.path)}")
