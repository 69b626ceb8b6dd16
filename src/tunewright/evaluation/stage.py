"""The evaluate and judge stages: every arm answers the sealed exam, scores and verdict follow, a judge reads along."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tunewright import console
from tunewright.errors import StageError
from tunewright.evaluation.answering import all_answers
from tunewright.evaluation.arms import (
    BASE_AND_TUNED,
    RETRIEVING,
    SEARCHING,
    WITH_ADAPTER,
    Library,
    majority_answer,
    majority_answers,
    num_passages,
    passages_by_arm,
    recall,
    shots_by_arm,
)
from tunewright.evaluation.comparison_csv import comparison_csv, marks_in
from tunewright.evaluation.extra_arms import extra_arms, weights_of
from tunewright.evaluation.judge import AnsweredExam, check_independent, judge_answers, summarize
from tunewright.evaluation.recovery import measure_recovery
from tunewright.evaluation.results import RetrievalResult
from tunewright.evaluation.rule import CHEAP, note_rule, rule
from tunewright.evaluation.seal import CHECKED, SEALED, SealState
from tunewright.evaluation.verdict import Verdict, decide
from tunewright.metrics import score
from tunewright.models.chat_template import passage_text
from tunewright.models.model_pool import ModelWeights
from tunewright.recipe import Recipe
from tunewright.records import Answer, AnyRecord, Chunk, Question, RetentionItem, Sample, SplitEntry, StageSummary
from tunewright.retrieval.index import Index
from tunewright.retrieval.reranker import open_reranker
from tunewright.retrieval.sentence_model import open_sentence_model, sentence_model_identity
from tunewright.retrieval.stored_vectors import StoredVectors
from tunewright.run_folder import RunFile, RunFolder, further_adapters
from tunewright.settings import Arm
from tunewright.storage import file_digest
from tunewright.teacher import open_teacher

_IF_CHANGED = {
    "exam": 'to use another exam, name it in the recipe: exam.file = "my-exam.jsonl"',
    "kept": "delete kept.jsonl and run the recipe again: it draws the items again",
}


def evaluate(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Answer the exam with every arm, score the answers, apply the rule that was written before.

    Writes rules.jsonl and rule.json (before the first answer), answers.jsonl, kept-answers.jsonl, scores.jsonl,
    comparison.csv and verdict.json, which the stage "verdict" writes again where marks decide.

    Raises:
        StageError: the exam is not the one that was sealed, or a likelihood overflowed.
    """
    seal = run.json_if_any(RunFile.SEAL)
    questions = _sealed(run, seal, "exam", Question)
    samples, model = read_training_samples(run, recipe), sentence_model(run, recipe)
    shots = shots_by_arm(samples, recipe.evaluation.few_shot, recipe.seed, model)
    majority, library = majority_answer(samples), read_library(run, recipe, model)
    impossible = _impossible_arms(library, questions, has_shots=bool(shots))
    arms = _possible_arms(recipe.evaluation.arms, impossible)
    items = _sealed(run, seal, "kept", RetentionItem) if set(BASE_AND_TUNED) <= set(arms) else []
    extras = {extra.name: extra for extra in extra_arms(recipe)}
    judged = (*arms, *([Arm.MAJORITY] if majority else []))
    seeds = further_adapters(recipe.training.seeds) if Arm.TUNED in arms else {}
    the_rule, changes = _fixed_rule(run, recipe, judged, impossible, tuple(extras), tuple(seeds), bool(items))
    weights = weights_by_arm(run, recipe, (*arms, *seeds)) | {
        name: weights_of(extra, recipe) for name, extra in extras.items()
    }
    journal = run.journal(RunFile.ANSWERS_JOURNAL)
    num_shown = num_passages(library, questions, recipe.retrieval.passages)
    passages = passages_by_arm(library, num_shown) if library else {}
    answers, retention_answers = all_answers(journal, recipe, questions, weights, items, shots, passages)
    answers += majority_answers(questions, majority) if majority else []
    by_id = {question.id: question for question in questions}
    scores = [score(by_id[answer.question], answer, recipe.refusal) for answer in answers]
    other_bases = [name for name, extra in extras.items() if extra.base]
    verdict = decide(scores, answers, the_rule, leaks(run, recipe), retention_answers, changes, other_bases)
    verdict = _with_retrieval(verdict, library, questions, recipe.retrieval.model, num_shown)
    recovery = measure_recovery(questions, scores, 1 - the_rule["alpha"])
    verdict = verdict.model_copy(update={"results": verdict.results.model_copy(update={"recovery": recovery})})
    run.write_records(RunFile.ANSWERS, answers)
    run.write_records(RunFile.RETENTION_ANSWERS, retention_answers)
    run.write_records(RunFile.SCORES, scores)
    write_comparison(run, comparison_csv(questions, answers, tuple(arm for arm in weights if arm not in seeds)))
    run.write(RunFile.VERDICT, verdict.model_dump_json(indent=2) + "\n")
    figures: dict[str, float | int | str] = {
        "answers": len(answers),
        "kept_answers": len(retention_answers),
        "generated_tokens": sum(answer.num_tokens for answer in answers),
        "verdict": verdict.name,
    }
    return StageSummary(num_in=len(questions), num_out=len(questions), figures=figures)


def _fixed_rule(
    run: RunFolder,
    recipe: Recipe,
    arms: Sequence[str],
    impossible: Mapping[str, str],
    extras: Sequence[str],
    seeds: Sequence[str],
    measures_forgetting: bool,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Write the rule before it is applied; return it, and what of it was changed after answers existed."""
    settings = recipe.evaluation
    absent_rivals = {arm: reason for arm, reason in impossible.items() if arm in CHEAP}
    margin = settings.forgetting_margin if measures_forgetting else None
    fixed = rule(settings.margin, arms, margin, extras, settings.use, absent_rivals, settings.primary, seeds)
    changes = note_rule(run.journal(RunFile.RULE_HISTORY), fixed, run.file(RunFile.ANSWERS_JOURNAL).is_file())
    run.write_json(RunFile.RULE, fixed)
    return fixed, changes


def judge_exam(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Let the judge read the answers; write judgments.jsonl and judge.json.

    Raises:
        RecipeError: the judge is the teacher or of the student's family, and not forced.
        TeacherError: the judge cannot be used; its judgments so far stay in its journal.
    """
    faults = check_independent(recipe)
    exam = AnsweredExam.of(
        run.read_records(RunFile.EXAM, Question),
        run.records_if_any(RunFile.CHUNKS, Chunk),
        [answer for answer in run.read_records(RunFile.ANSWERS, Answer) if answer.arm != Arm.MAJORITY],  # no model's
        recipe.refusal,
    )
    with open_teacher(run.journal(RunFile.TEACHER_JOURNAL), recipe.judge.as_teacher, "judge") as teacher:
        judgments = judge_answers(exam, teacher, recipe.seed)
        figures: dict[str, float | int | str] = {"calls": teacher.num_calls, "from_journal": teacher.num_from_journal}
        if teacher.cost:
            figures["cost_usd"] = round(teacher.cost, 6)
        figures |= teacher.notes()
    summary = summarize(judgments, exam.answers, exam.num_declined(), recipe.judge.model, faults)
    summary = summary.model_copy(update={"answers": file_digest(run.file(RunFile.ANSWERS))})
    run.write_records(RunFile.JUDGMENTS, judgments)
    run.write(RunFile.JUDGE, summary.model_dump_json(indent=2) + "\n")
    missing = sum(judgment.outcome is None for judgment in judgments)
    if missing:
        console.warning(f"{missing} of {len(judgments)} judgments have no usable verdict and are left out")
    rejected = {"no verdict": missing} if missing else {}
    return StageSummary(num_in=len(judgments), num_out=len(judgments) - missing, rejected=rejected, figures=figures)


def read_training_samples(run: RunFolder, recipe: Recipe) -> list[Sample]:
    """Return the chats that were trained on; none after raw text or preferences alone."""
    return run.records_if_any(RunFile.TRAIN, Sample) if recipe.needs_samples else []


def sentence_model(run: RunFolder, recipe: Recipe) -> StoredVectors | None:
    """Return the recipe's sentence model; None where an index searches by words alone, or no arm searches."""
    name = recipe.retrieval.model
    if not name or not SEARCHING & set(recipe.evaluation.arms):
        return None
    model, known_as = open_sentence_model(name, recipe.folder), sentence_model_identity(name, recipe.folder)
    return StoredVectors(model, run.file(RunFile.VECTORS), known_as)


def read_library(run: RunFolder, recipe: Recipe, model: StoredVectors | None) -> Library | None:
    """Return the passages of all documents with their index; None where a run has only the user's own data."""
    split = run.records_if_any(RunFile.SPLIT, SplitEntry)
    chunks = run.read_records(RunFile.CHUNKS, Chunk) if split else []
    if not chunks:
        return None
    used = recipe.retrieval.reranker if RETRIEVING & set(recipe.evaluation.arms) else ""
    reranker = open_reranker(used, recipe.folder) if used else None
    index = Index([passage_text(chunk) for chunk in chunks], model, [chunk.title for chunk in chunks], reranker)
    return Library(chunks, index, {entry.document: entry.group for entry in split})


def _with_retrieval(
    verdict: Verdict, library: Library | None, questions: Sequence[Question], model: str, num_shown: int
) -> Verdict:
    """Return the verdict with the recall of the search behind the rag arms, where they ran."""
    if library is None or verdict.results.arm(Arm.RAG) is None:
        return verdict
    num_questions, shares = recall(library, questions)
    result = RetrievalResult(
        num_questions=num_questions,
        num_passages=len(library.chunks),
        passages=num_shown,
        model=model,
        recall=shares,
    )
    return verdict.model_copy(update={"results": verdict.results.model_copy(update={"retrieval": result})})


def read_seal_state(run: RunFolder) -> SealState:
    """Return a run's seal, and the content and digests of the files that it vouches for."""
    files = [*SEALED.values(), *(name for names in CHECKED.values() for name in names)]
    return SealState(
        seal=run.json_if_any(RunFile.SEAL),
        rule=run.json_if_any(RunFile.RULE),
        verdict=run.json_if_any(RunFile.VERDICT),
        records={stage: run.stage_record(stage) for stage in CHECKED},
        digests={name: file_digest(run.file(name)) for name in files if run.file(name).is_file()},
    )


def write_comparison(run: RunFolder, table: str) -> None:
    """Write comparison.csv, and never lose a mark that a person typed into the existing one.

    A marked table of the same answers stays; a marked table of other answers is renamed, with a warning.
    """
    path = run.file(RunFile.COMPARISON)
    marks = marks_in(path.read_bytes(), table) if path.is_file() else "none"
    if marks == "on these answers":
        return
    if marks == "on other answers":
        names = (path.with_name(f"comparison.marked-{number}.csv") for number in itertools.count(1))
        renamed = next(name for name in names if not name.exists())
        path.rename(renamed)
        console.warning(f"{RunFile.COMPARISON} holds marks on other answers; it is renamed to {renamed.name}")
    run.write(RunFile.COMPARISON, table)


def weights_by_arm(run: RunFolder, recipe: Recipe, arms: Sequence[str]) -> dict[str, ModelWeights]:
    """Return the weights that answer for each of the recipe's arms."""
    weights: dict[str, ModelWeights] = {Arm.BASE: ModelWeights.of(recipe)}
    if WITH_ADAPTER & set(arms):
        weights |= dict.fromkeys(WITH_ADAPTER, ModelWeights.of(recipe, run.file(RunFile.ADAPTER)))
    weights |= {
        arm: ModelWeights.of(recipe, run.file(folder))
        for arm, folder in further_adapters(recipe.training.seeds).items()
        if arm in arms
    }
    if Arm.PLACEBO in arms:
        weights[Arm.PLACEBO] = ModelWeights.of(recipe, run.file(RunFile.PLACEBO))
    return {arm: weights.get(arm, weights[Arm.BASE]) for arm in arms}


def _impossible_arms(library: Library | None, questions: Sequence[Question], has_shots: bool) -> dict[str, str]:
    """Return the arms that have no context to show, with the reason: they would only repeat base or tuned."""
    reasons: dict[str, str] = {}
    if library is None:
        reasons = dict.fromkeys((Arm.RAG, Arm.TUNED_RAG, Arm.ORACLE), "there are no documents to search")
    elif not any(question.passage is None and library.evidence(question) for question in questions):
        reasons = {Arm.ORACLE: "no question without a passage names its evidence"}
    if not has_shots:
        reasons |= dict.fromkeys((Arm.FEW_SHOT, Arm.SIMILAR_SHOT), "there is no training chat to show")
    return {str(arm): reason for arm, reason in reasons.items()}


def _possible_arms(wanted: Sequence[str], impossible: Mapping[str, str]) -> tuple[str, ...]:
    """Return the wanted arms that a model answers and the data allows, with a warning for each that it does not."""
    for arm in wanted:
        if arm in impossible:
            console.warning(f"the {arm} arm is left out: {impossible[arm]}")
    return tuple(arm for arm in wanted if arm not in impossible and arm != Arm.MAJORITY)


def _sealed(run: RunFolder, seal: Mapping[str, Any], key: str, kind: type[AnyRecord]) -> list[AnyRecord]:
    """Return the records of a sealed file, named by its key in the seal.

    Raises:
        StageError: the file is not the one that was sealed.
    """
    file = run.file(SEALED[key])
    if not (file.is_file() and seal.get(key) == file_digest(file)):
        raise StageError(
            f"the exam was changed after it was sealed: {file.name}",
            f"the digest of {file.name} is not the one in seal.json",
            _IF_CHANGED[key],
        )
    return run.read_records(SEALED[key], kind)


def leaks(run: RunFolder, recipe: Recipe) -> int | None:
    """Return how many training samples leak the unseen ring, as curation counted them; None where none was curated.

    A record of earlier settings, under which samples were trained on, does not apply to this run.
    """
    record = run.stage_record("curate") if recipe.needs_samples else {}
    return int(record["summary"]["figures"].get("leaks_left", 0)) if record else None
