"""The stages hold-out (chats for the exam), curate (training set) and pairs: every drop counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain

from tunewright import console
from tunewright.curation.boilerplate import Boilerplate
from tunewright.curation.chat_formats import SAME_SYSTEM, each_own_sample, row_groups, system_text
from tunewright.curation.decontamination import Leaks, remaining_leaks
from tunewright.curation.edits import apply_edits, decisions, read_edits
from tunewright.curation.filters import STAGE, pass_through, rules_for
from tunewright.curation.held_out import HELD_OUT_REASON, held_out, is_question
from tunewright.curation.packed_samples import PackedSamples, Selection
from tunewright.curation.preference_pairs import STAGE as PAIRS_STAGE
from tunewright.curation.preference_pairs import (
    PairInputs,
    as_sample,
    filter_pairs,
    length_figures,
    made_candidates,
    no_pairs_error,
    read_own_pairs,
)
from tunewright.curation.sample_rules import SampleSources, answered_quotes
from tunewright.curation.student_sampling import reward_figures, sample_rewards
from tunewright.curation.teacher_checks import Figures, check_by_teacher
from tunewright.errors import StageError
from tunewright.models.data_sources import chat_paths
from tunewright.models.tensors import TokenVectors, read_token_vectors
from tunewright.recipe import Recipe
from tunewright.records import OWN, Chunk, Document, PreferencePair, Question, Rejection, Sample, StageSummary
from tunewright.run_folder import RunFile, RunFolder
from tunewright.teacher import Teacher, open_teacher
from tunewright.teacher.protocol import TeacherLike
from tunewright.text.remedies import reasons_text, remedy


def filter_samples(
    samples: Sequence[Sample],
    sources: SampleSources,
    exam: Sequence[Question],
    vectors: TokenVectors | None = None,
    teacher: TeacherLike | None = None,
    approved: frozenset[str] = frozenset(),
) -> tuple[Sequence[Sample], list[Rejection], Figures]:
    """Return the samples kept, in their order, the rejections, and the figures.

    The ``approved`` samples are those that people answer for: only rules that nobody overrides drop them.
    The figures are the drops by filter, the removed leaks and their share of all samples by detector, the leaks that a
    second, independent detector still finds (``leaks_left``) among the samples it checks (``leaks_looked_at``), and the
    texts taken for boilerplate with their share of the own prompts.

    Raises:
        TeacherError: the teacher cannot be used, or most calls fail.
    """
    boilerplate = Boilerplate(samples, exam)
    filtered = pass_through(samples, rules_for(samples, sources, exam, vectors, teacher, boilerplate), approved)
    kept, rejections, checked = filtered.kept, filtered.rejections, Figures()
    if teacher and sources.recipe.curation.checks:
        doubtful, more, checked = check_by_teacher([s for s in kept if s.id not in approved], sources, teacher)
        passed = {sample.id for sample in doubtful} | approved
        kept = Selection(kept, (number for number, sample in enumerate(kept) if sample.id in passed))
        rejections = [*rejections, *more]
    left, num_checked = remaining_leaks(kept, exam, sources.recipe.curation.ngram, boilerplate)
    if left:
        console.warning(f"{len(left)} of {num_checked:,} samples still hold exam evidence, such as sample {left[0]}")
    figures: Figures = {f"dropped by {name}": count for name, count in filtered.dropped_by.items() if count}
    figures |= {f"leak rate: {reason}": round(n / len(samples), 6) for reason, n in sorted(filtered.leaks.items()) if n}
    figures |= {"leaks_removed": filtered.leaks.total(), "leaks_left": len(left), "leaks_looked_at": num_checked}
    return kept, rejections, figures | checked | boilerplate.figures()


@contextmanager
def _open_models(
    run: RunFolder, recipe: Recipe, exam: Sequence[Question]
) -> Iterator[tuple[TokenVectors | None, Teacher | None]]:
    """Yield the models of the recipe's costlier filters: the student's token vectors, and the teacher."""
    check = recipe.curation.paraphrase_check and bool(exam)
    vectors = None
    if recipe.curation.embedding_duplicate or check:
        vectors = read_token_vectors(recipe.model.base, recipe.folder)
    check = check or bool(recipe.curation.checks)
    with ExitStack() as opened:
        teacher = None
        if check:
            journal = run.journal(RunFile.TEACHER_JOURNAL)
            teacher = opened.enter_context(open_teacher(journal, recipe.writer, STAGE))
        yield vectors, teacher


def _nothing_kept(num_in: int, rejections: Sequence[Rejection], run: RunFolder) -> StageError:
    if not num_in:
        return StageError(
            "there are no samples to curate",
            "the teacher wrote none, and the recipe names no chat data of your own",
            "raise synthesis.samples_per_document, or name your data in synthesis.data",
        )
    return StageError(
        f"all {num_in} samples were rejected: the training set would be empty",
        f"dropped because: {reasons_text(rejections)}",
        f"read them in '{run.file(RunFile.REJECTED)}'; then {remedy(rejections)}",
    )


def _print_funnel(num_in: int, rejected: dict[str, int], num_out: int) -> None:
    drops = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    rows = [("samples in", num_in), *[(f"- {reason}", count) for reason, count in drops], ("kept", num_out)]
    num_near = rejected.get("near duplicate", 0)
    if num_near > num_in / 2:
        console.warning(f"{num_near:,} of {num_in:,} samples are near duplicates; check them in {RunFile.REJECTED}")
    console.table("training set", ("reason", "samples"), [(name, f"{count:,}") for name, count in rows])


def _sources(run: RunFolder, recipe: Recipe, answered: Mapping[str, Sequence[str]]) -> SampleSources:
    documents = {document.id: document for document in run.records_if_any(RunFile.DOCUMENTS, Document)}
    chunks = {chunk.id: chunk for chunk in run.records_if_any(RunFile.CHUNKS, Chunk)}
    return SampleSources(recipe, documents, chunks, answered)


def _own_samples(run: RunFolder, recipe: Recipe, rejections: list[Rejection]) -> Iterator[Sample]:
    """Yield the user's own samples that are not held out; the others and the malformed lines become rejections."""
    held = {sample.id for sample in run.each_record(RunFile.HELD_OUT, Sample)} if recipe.holds_out_data else set()
    withheld: list[Rejection] = []
    for sample in each_own_sample(chat_paths(recipe), rejections, recipe.training.reasoning == "keep"):
        if sample.id in held:
            withheld.append(Rejection(stage=STAGE, id=sample.id, reason=HELD_OUT_REASON, task=sample.task))
        else:
            yield sample
    rejections += withheld


def hold_out(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write held-out.jsonl: the part of the user's own chats that becomes the exam, before anything is trained on.

    Raises:
        DocumentError: the data is missing, none of it is a conversation, or it cannot be split.
    """
    paths = chat_paths(recipe)
    keeps = recipe.training.reasoning == "keep"
    malformed: list[Rejection] = []
    samples = PackedSamples(each_own_sample(paths, malformed, keeps))
    split = held_out(
        samples, row_groups(paths, keeps), recipe.exam.held_out_share, recipe.curation.near_duplicate, recipe.seed
    )
    run.write_records(RunFile.HELD_OUT, split.samples)
    questions = [sample for sample in split.samples if is_question(sample)]
    systems = [sample for sample in questions if sample.messages[0].role == "system"]
    others = sum(sample.messages[0].content != recipe.system_prompt for sample in systems)
    others += len(questions) - len(systems) if recipe.system_prompt else 0
    if others:
        console.warning(
            f"{others} of {len(questions)} held-out chats have another system turn than system_prompt; "
            "the exam is answered with system_prompt"
        )
    console.line(f"  {split.note}")
    figures: Figures = {"held out": len(split.samples), "groups": split.num_groups, "questions": len(questions)}
    rejected = {"malformed": len(malformed)} if malformed else {}
    return StageSummary(num_in=len(samples) + len(malformed), num_out=len(samples), rejected=rejected, figures=figures)


def _warn_of_other_system_turns(kept: Sequence[Sample], recipe: Recipe) -> None:
    systems = Counter(system_text(sample) for sample in kept if sample.task == OWN)
    num_own, bare = systems.total(), systems[""] if recipe.system_prompt else 0
    num_others = num_own - systems[recipe.system_prompt]
    if num_others > (1 - SAME_SYSTEM) * num_own:
        console.warning(
            f"{num_others} of {num_own} own samples are trained with another system turn than system_prompt"
            f"{f' ({bare} of them with none)' if bare else ''}; the exam, chat and serve use system_prompt: "
            "make the two equal"
        )


def curate(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write train.jsonl: the synthesized samples, then the user's own data, without those that a filter drops.

    The edits of people (edits.jsonl) come first: the filters see the samples as they were edited.

    Raises:
        StageError: no sample is left to train on.
        DocumentError: the user's own data is missing, or none of it is a conversation.
    """
    malformed: list[Rejection] = []
    written = run.each_record(RunFile.SAMPLES, Sample) if run.file(RunFile.SAMPLES).exists() else iter(())
    every = PackedSamples(chain(written, _own_samples(run, recipe, malformed)))
    by_hand = apply_edits(every, decisions(read_edits(run.journal_entries(RunFile.EDITS))), STAGE)
    samples = by_hand.samples
    sources = _sources(run, recipe, answered_quotes(samples, recipe.refusal))
    exam = run.records_if_any(RunFile.EXAM, Question)
    if not exam and samples:
        console.warning("there is no exam: the training data cannot be checked for leaks")
    with _open_models(run, recipe, exam if samples else []) as (vectors, teacher):
        kept, dropped, figures = filter_samples(samples, sources, exam, vectors, teacher, by_hand.approved)
        figures |= by_hand.figures | (teacher.notes() if teacher else {})
    malformed += by_hand.rejections
    num_in = len(samples) + len(malformed)
    rejected = run.reject(STAGE, [*malformed, *dropped])
    if num_in:
        _print_funnel(num_in, rejected, len(kept))
    if not kept:
        raise _nothing_kept(num_in, [*malformed, *dropped], run)
    _warn_of_other_system_turns(kept, recipe)
    run.write_records(RunFile.TRAIN, kept)
    if recipe.curation.reward:
        rewards = sample_rewards(kept, recipe)
        run.write_records(RunFile.REWARDS, rewards)
        figures |= reward_figures(rewards)
    tasks = Counter(sample.task for sample in kept)
    per_task = {f"task {task}": tasks[task] for task in sorted(tasks)}
    return StageSummary(num_in=num_in, num_out=len(kept), rejected=rejected, figures={**per_task, **figures})


def curate_pairs(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write pairs.jsonl: the user's own pairs, then the made ones, without malformed ones, repeats, leaks and surplus.

    Raises:
        DocumentError: a file is missing, or none of its pairs is left.
        StageError: no pair could be made.
    """
    samples = run.read_records(RunFile.TRAIN, Sample) if recipe.preference.make else []
    candidates = read_own_pairs(recipe)
    exam = run.read_records(RunFile.EXAM, Question)
    own = [as_sample(pair) for _, pair in candidates if isinstance(pair, PreferencePair)]
    leaks = Leaks(exam, recipe.curation.ngram, Boilerplate([*samples, *own], exam))
    if recipe.preference.make:
        journal = run.journal(RunFile.STUDENT_JOURNAL)
        candidates += made_candidates(PairInputs(samples, _sources(run, recipe, {}), journal))
    by_id = {sample.id: sample for sample in samples}
    kept, rejections = filter_pairs(candidates, leaks, by_id, recipe.refusal, recipe.seed)
    rejected = run.reject(PAIRS_STAGE, rejections)
    if not kept:
        raise no_pairs_error(bool(recipe.preference.make), rejections)
    if rejections:
        console.warning(f"{len(rejections)} of {len(rejections) + len(kept)} preference pairs are dropped")
    run.write_records(RunFile.PAIRS, kept)
    num_in = len(kept) + len(rejections)
    return StageSummary(num_in=num_in, num_out=len(kept), rejected=rejected, figures=length_figures(kept))
