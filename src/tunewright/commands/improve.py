"""The command improve: rounds of new samples on facts that are answered wrongly and sentences that nothing reaches."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewright import console, pipeline
from tunewright.errors import RecipeError, RunFolderError, StageError, TeacherError, TrainingError
from tunewright.evaluation.answering import all_answers
from tunewright.evaluation.recovery import Recovery, recovery_sentences
from tunewright.evaluation.verdict import Verdict
from tunewright.metrics import score
from tunewright.models.model_pool import ModelWeights
from tunewright.recipe import Recipe, load_recipe, parse_recipe
from tunewright.records import Chunk, Document, Question, Record, Sample, SplitEntry, jsonl_lines
from tunewright.reporting.data_statistics import coverage
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import EMBEDDED, Arm
from tunewright.statistics.intervals import Interval, mean_interval, number, spread
from tunewright.storage import file_digest, write_atomic
from tunewright.synthesis.context import Focus
from tunewright.synthesis.development import development_questions
from tunewright.synthesis.questions import chunks_by_document

MOST_ROUNDS = 4
_LEAST_GAIN = 0.01  # of the development score, or of the share of sentences reached: below both, rounds have ended
_RIGHT = 0.5
_ASKING = ("answer-first", "passage-qa")
# What a round shares with its run: documents, their split, and the sealed exam that its samples are checked against.
_SHARED = (RunFile.DOCUMENTS, RunFile.CHUNKS, RunFile.SPLIT, RunFile.EXAM, RunFile.RETENTION, RunFile.SEAL)
_SHARED_STAGES = ("ingest", "split", "exam")

Sentences = dict[tuple[str, int], int]  # (document, start) → the samples that reach it


class Round(Record):
    """What a round left behind; round 0 is the run itself.

    Attributes:
        folder: of the round, within the run's.
        adapter: digest of its adapter.
        score: on the development set, clustered by document.
        num_wrong: development questions that its adapter answers wrongly.
        num_samples: that it was trained on.
        num_sentences: of the training documents, that hold a fact.
        num_reached: of them, those that a sample of this or an earlier round reaches.
    """

    number: int
    folder: str
    adapter: str
    score: Interval
    num_wrong: int
    num_samples: int
    num_sentences: int
    num_reached: int


def improve(folder: Path) -> None:
    """Improve a finished run in rounds, each a run folder under improve/; then answer the sealed exam once.

    A round asks about the facts that the last adapter still answers wrongly in the development set, and about the
    sentences that no sample reaches; it trains on these new samples alone, from the last adapter. Rounds end when
    neither the score nor the reach rises, or after four. The best adapter alone answers the exam. After any stop
    the same call continues.

    Raises:
        RunFolderError: the run is not finished, or its files were changed.
        RecipeError: its recipe has nothing to ask about.
        TeacherError: the teacher cannot be used; its answers so far are kept.
    """
    run = RunFolder.open(folder)
    pipeline.require(run, RunFile.RECIPE, RunFile.TRAIN, RunFile.ADAPTER, RunFile.VERDICT)
    pipeline.require_untouched(run)
    recipe = load_recipe(run.file(RunFile.RECIPE))
    _check(recipe)
    with run.lock():
        questions = _development(run, recipe)
        rounds, why = _rounds(run, recipe, questions)
    console.table(
        "rounds",
        ("round", "development score", "wrong", "samples", "sentences reached"),
        [_row(entry) for entry in rounds],
    )
    console.line(f"  ended: {why}")
    best = max(rounds, key=lambda entry: (entry.score.mean, entry.number))
    if not best.number:
        console.line("  no round answers more of the development set than the run itself: its adapter stays the best")
        return
    _evaluate(run, RunFolder(run.path / best.folder))


def _check(recipe: Recipe) -> None:
    if not recipe.documents.paths:
        raise RecipeError(
            "there are no sentences to ask about",
            "the run has no documents, only chats of your own",
            "add chats to synthesis.data and run the recipe again",
        )
    if recipe.training.method == "full":
        raise RecipeError("improve goes on from an adapter", 'training.method = "full" has none', "train an adapter")


def _development(run: RunFolder, recipe: Recipe) -> list[Question]:
    """Return the development set; it is written once, before the first round, apart from the exam."""
    if run.file(RunFile.DEVELOPMENT).is_file():
        return run.read_records(RunFile.DEVELOPMENT, Question)
    apart = [q.evidence for q in run.read_records(RunFile.EXAM, Question) if q.evidence]
    samples = run.read_records(RunFile.TRAIN, Sample)
    documents, chunks = _training_side(run)
    taught = [sample.question for sample in samples]
    questions = development_questions(documents, chunks_by_document(chunks), recipe.seed, apart, taught)
    if not questions:
        raise RecipeError(
            "no development question can be written",
            "no training sentence outside the exam states a quantity, a year or a name",
            "add documents",
        )
    run.write_records(RunFile.DEVELOPMENT, questions)
    console.line(f"development set: {len(questions)} short questions on training documents, apart from the exam")
    return questions


def _training_side(run: RunFolder) -> tuple[list[Document], list[Chunk]]:
    side = {entry.document for entry in run.read_records(RunFile.SPLIT, SplitEntry) if entry.side == "train"}
    documents = [document for document in run.read_records(RunFile.DOCUMENTS, Document) if document.id in side]
    return documents, [chunk for chunk in run.read_records(RunFile.CHUNKS, Chunk) if chunk.document in side]


def _rounds(run: RunFolder, recipe: Recipe, questions: Sequence[Question]) -> tuple[list[Round], str]:
    """Run the rounds; return them, and why they ended. rounds.json is written after each."""
    documents, chunks = _training_side(run)
    samples, current = run.read_records(RunFile.TRAIN, Sample), run
    rounds: list[Round] = []
    wrong: set[str] = set()
    sentences: Sentences = {}
    for round_number in range(MOST_ROUNDS + 1):
        if round_number:
            focus = _focus(wrong, sentences, questions, round_number)
            if not focus:
                return rounds, "every development question is right, and every sentence is reached"
            current = RunFolder(run.file(f"improve/round-{round_number}"))
            console.heading(f"round {round_number}: {len(focus)} sentences")
            if fault := _train(run, current, recipe, run.path / rounds[-1].folder / RunFile.ADAPTER, focus):
                return rounds, fault
            samples = [*samples, *current.read_records(RunFile.TRAIN, Sample)]
        scores = _scores(run, recipe, questions, current.file(RunFile.ADAPTER))
        wrong = {question.id for question in questions if scores[question.id] < _RIGHT}
        sentences = _reach(documents, chunks, samples)
        num_samples = len(current.read_records(RunFile.TRAIN, Sample))
        rounds.append(_round(round_number, run, current, questions, scores, num_samples, sentences))
        run.write_json(RunFile.ROUNDS, {"rounds": [entry.model_dump(mode="json") for entry in rounds]})
        console.line(f"  {_sentence(rounds[-1])}")
        if round_number and _is_plateau(rounds):
            return (
                rounds,
                f"a plateau: round {round_number} raised neither the score nor the reach by {_LEAST_GAIN:.0%}",
            )
    return rounds, f"{MOST_ROUNDS} rounds are the most"


def _is_plateau(rounds: Sequence[Round]) -> bool:
    last, before = rounds[-1], rounds[:-1]
    gain = last.score.mean - max(entry.score.mean for entry in before)
    reach = (last.num_reached - before[-1].num_reached) / max(1, last.num_sentences)
    return gain < _LEAST_GAIN and reach < _LEAST_GAIN


def _reach(documents: Sequence[Document], chunks: Sequence[Chunk], samples: Sequence[Sample]) -> Sentences:
    """Return how many samples reach each sentence that holds a fact."""
    covered = coverage(documents, chunks, samples)
    return {(document.document, s.start): s.num_samples for document in covered for s in document.sentences}


def _focus(wrong: set[str], sentences: Sentences, questions: Sequence[Question], round_number: int) -> list[Focus]:
    """Return the sentences of facts answered wrongly, and those that nothing reaches."""
    kept_apart = {(q.document, q.evidence.start): q for q in questions if q.evidence}
    chosen = {where for where, question in kept_apart.items() if question.id in wrong}
    chosen |= {where for where, num_samples in sentences.items() if not num_samples}
    return [
        Focus(
            document=document,
            start=start,
            view=round_number - 1,
            avoid=kept_apart[document, start].question if (document, start) in kept_apart else "",
        )
        for document, start in sorted(chosen)
    ]


def _train(run: RunFolder, current: RunFolder, recipe: Recipe, start: Path, focus: Sequence[Focus]) -> str:
    """Write, curate and train on the samples of a round; return why that gave no adapter, or nothing."""
    current = RunFolder.create(current.path)
    shared = (*_SHARED, *(f"stages/{stage}.json" for stage in _SHARED_STAGES))
    for name in shared:
        if run.file(name).is_file() and not current.file(name).is_file():
            current.file(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.file(name), current.file(name))
    current.note(*shared)
    content = b"".join(jsonl_lines(focus))
    path = current.file(RunFile.FOCUS)
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)
    own = _round_recipe(recipe, start, path)
    for state in pipeline.states(current, own):
        if state.stage.name in _SHARED_STAGES and state.state != "fresh":
            raise RunFolderError(
                f"{run.path} is not up to date: {state.stage.name} is {state.state}", state.why, run.again()
            )
    try:
        pipeline.run(own, current.path, until="train")
    except (TeacherError, TrainingError):
        raise
    except StageError as error:  # nothing usable was written: the rounds so far are the result
        return f"{error.headline} ({error.cause})"
    return ""


def _round_recipe(recipe: Recipe, start: Path, focus: Path) -> Recipe:
    """Return the recipe of a round: the run's, for the sentences in focus, from the last adapter."""
    asking = tuple(task for task in recipe.synthesis.tasks if task in _ASKING)
    fallback = ("answer-first",) if recipe.teacher.url == EMBEDDED else ("passage-qa",)
    changes: Mapping[str, dict[str, Any]] = {
        "synthesis": {
            "tasks": asking or fallback,
            "focus": str(focus.absolute()),
            "coverage": max(1, recipe.synthesis.coverage),
            "data": (),
            "views": 0,
            "general_samples": 0,
        },
        "training": {"start": str(start.absolute()), "text_share": 0.0, "seeds": 1},
        "preference": {"data": (), "make": ()},
    }
    content = recipe.model_dump()
    for section, values in changes.items():
        content[section] = {**content[section], **values}
    return parse_recipe(content, recipe.folder)


def _scores(run: RunFolder, recipe: Recipe, questions: Sequence[Question], adapter: Path) -> dict[str, float]:
    """Return the score of an adapter on each development question; answers are journaled."""
    journal = run.journal(RunFile.DEVELOPMENT_JOURNAL)
    answers = all_answers(journal, recipe, questions, {Arm.TUNED: ModelWeights.of(recipe, adapter)})[0]
    known = {question.id: question for question in questions}
    return {a.question: score(known[a.question], a, recipe.refusal).primary for a in answers}


def _round(
    round_number: int,
    run: RunFolder,
    current: RunFolder,
    questions: Sequence[Question],
    scores: Mapping[str, float],
    num_samples: int,
    sentences: Sentences,
) -> Round:
    values = [scores[question.id] for question in questions]
    return Round(
        number=round_number,
        folder=str(current.path.relative_to(run.path)),
        adapter=file_digest(current.file(RunFile.ADAPTER)),
        score=mean_interval(values, [question.document for question in questions]),
        num_wrong=sum(value < _RIGHT for value in values),
        num_samples=num_samples,
        num_sentences=len(sentences),
        num_reached=sum(map(bool, sentences.values())),
    )


def _row(entry: Round) -> list[str]:
    reached = f"{entry.num_reached} of {entry.num_sentences} ({entry.num_reached / max(1, entry.num_sentences):.0%})"
    score_text = f"{number(entry.score.mean)} ({spread(entry.score)})"
    return [str(entry.number), score_text, str(entry.num_wrong), str(entry.num_samples), reached]


def _sentence(entry: Round) -> str:
    _, score_text, wrong, samples, reached = _row(entry)
    return f"development score {score_text}, {wrong} wrong; {samples} samples; sentences reached: {reached}"


def _evaluate(run: RunFolder, best: RunFolder) -> None:
    """Answer the sealed exam with the best round's adapter, once, and print what it recovers beside the run."""
    journal = best.file(RunFile.ANSWERS_JOURNAL)
    if not journal.is_file() and run.file(RunFile.ANSWERS_JOURNAL).is_file():
        shutil.copyfile(run.file(RunFile.ANSWERS_JOURNAL), journal)  # of the base and its rivals, which did not change
    pipeline.run(load_recipe(best.file(RunFile.RECIPE)), best.path)
    for name, folder in (("before", run), ("after", best)):
        recovery = folder.read_record(RunFile.VERDICT, Verdict).results.recovery
        console.line(f"  {name}: {_recovered(recovery)}")
    console.line(f"\n  {'report.html'.ljust(16)}{best.file(RunFile.REPORT).absolute()}")
    console.line(f"  {'adapter'.ljust(16)}{best.file(RunFile.ADAPTER).absolute()}")


def _recovered(recovery: Recovery | None) -> str:
    return " ".join(recovery_sentences(recovery)[:2]) if recovery else "the exam has no short questions to recover"
