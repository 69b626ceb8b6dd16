"""How much a run has to do: documents, samples, tokens, pairs and questions, before and after they exist."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunewright.curation.chat_formats import read_own_data
from tunewright.curation.preference_pairs import read_own_pairs
from tunewright.documents.stage import num_sources
from tunewright.models.data_sources import chat_paths, exam_name, exam_path
from tunewright.models.source import folder_at_hand, model_folder
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, PreferencePair, Question, Sample, SplitEntry
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import EMBEDDED
from tunewright.statistics.power import question_counts
from tunewright.synthesis.own_exam import read_own_exam
from tunewright.synthesis.questions import chunks_by_document, ranked_evidence

CHUNKS_PER_DOCUMENT = 8  # stated guesses, before the documents are read
_TOKENS_PER_SAMPLE = 110
_YIELD = 0.75  # share of the written samples that curation keeps
_SAMPLES_TO_COUNT = 1000


@dataclass(frozen=True)
class Sizes:
    """How much there is to do."""

    num_train_documents: int
    num_exam_documents: int
    num_samples: int
    num_tokens: int
    num_questions: int
    num_chunks: int
    num_held_out: int = 0  # chats that become exam questions
    num_sentences: int = 0  # of training documents, that hold a fact; 0: not known yet
    num_text_tokens: int = 0  # of the training documents, where raw text is trained on
    num_own_pairs: int = 0  # preference pairs of the user's own
    num_pairs: int = 0  # all preference pairs, as far as none is dropped
    num_pair_tokens: int = 0  # of both conversations of each pair


def count_sizes(recipe: Recipe, run: RunFolder) -> Sizes:
    """Count from the run folder where it knows, else from the files and the recipe."""
    if run.file(RunFile.SPLIT).exists():
        sides = [entry.side for entry in run.read_records(RunFile.SPLIT, SplitEntry)]
        exam = sides.count("exam")
        train = len(sides) - exam
    elif run.file(RunFile.DOCUMENTS).exists():
        total = len(run.read_records(RunFile.DOCUMENTS, Document))
        exam = round(total * recipe.split.exam_share)
        train = total - exam
    else:
        total = num_sources(recipe) if recipe.documents.paths or not recipe.synthesis.data else 0
        exam = round(total * recipe.split.exam_share)
        train = total - exam
    written = train * recipe.synthesis.samples_per_document
    built_on = {"refusal": 3, "unanswerable": 1, "premise": 2, "dialogue": 1}  # samples per share of the answered
    shares = sum(number for task, number in built_on.items() if task in recipe.synthesis.tasks)
    kept = round(written * _YIELD * (1 + shares * recipe.synthesis.refusal_share)) + recipe.synthesis.general_samples
    tokens = kept * _TOKENS_PER_SAMPLE
    held_out = 0
    if run.file(RunFile.TRAIN).exists():
        samples = run.read_records(RunFile.TRAIN, Sample)
        kept, tokens = _trained(samples, recipe)
    elif recipe.synthesis.data:
        own, _ = read_own_data(chat_paths(recipe))
        held_out = round(recipe.exam.held_out_share * len(own))
        own_kept, own_tokens = _trained(list({sample.id: sample for sample in own}.values()), recipe)
        left = 1 - held_out / len(own)
        kept, tokens = kept + round(own_kept * left), tokens + round(own_tokens * left)
    counts = questions_by_document(recipe, run)
    questions = train * recipe.exam.learned_per_document + 2 * exam * recipe.exam.unseen_per_document + held_out
    questions = questions if counts is None else sum(counts)
    chunks = len(run.records_if_any(RunFile.CHUNKS, Chunk))
    own_chunks = round(chunks * train / max(1, train + exam))
    return Sizes(
        train, exam, kept, tokens, questions, own_chunks, held_out, _num_sentences(run, recipe),
        _text_tokens(recipe, run, train), *_pairs(recipe, run, kept, tokens),
    )  # fmt: skip


def _text_tokens(recipe: Recipe, run: RunFolder, num_documents: int) -> int:
    """Return the tokens of the training documents' text, where it is trained on: counted once it was read."""
    if not recipe.training.text_share or not recipe.training.epochs:
        return 0
    if not run.file(RunFile.CHUNKS).exists():
        return num_documents * CHUNKS_PER_DOCUMENT * recipe.documents.chunk_tokens
    held_out = {entry.document for entry in run.records_if_any(RunFile.SPLIT, SplitEntry) if entry.side != "train"}
    chunks = run.read_records(RunFile.CHUNKS, Chunk)
    return sum(chunk.num_tokens for chunk in chunks if chunk.document not in held_out)


def _pairs(recipe: Recipe, run: RunFolder, num_samples: int, num_tokens: int) -> tuple[int, int, int]:
    """Return how many preference pairs are the user's own, how many there are at most, and their tokens.

    A made pair has a sample's conversation twice; each way makes at most one of each sample.
    """
    if run.file(RunFile.PAIRS).exists():
        known = run.read_records(RunFile.PAIRS, PreferencePair)
        return sum(not pair.sample for pair in known), len(known), sum(map(_pair_tokens, known))
    rows = read_own_pairs(recipe) if recipe.preference.data else ()
    own = [pair for _, pair in rows if isinstance(pair, PreferencePair)]
    ways = len(recipe.preference.make)
    return len(own), len(own) + ways * num_samples, sum(map(_pair_tokens, own)) + 2 * ways * num_tokens


def _pair_tokens(pair: PreferencePair) -> int:
    """Return the tokens of both conversations; four characters are a token."""
    return (2 * sum(len(turn.content) for turn in pair.prompt) + len(pair.chosen) + len(pair.rejected)) // 4


def _num_sentences(run: RunFolder, recipe: Recipe) -> int:
    """Return the number of sentences of training documents that hold a fact; 0 before documents are read and split."""
    side = {entry.document for entry in run.records_if_any(RunFile.SPLIT, SplitEntry) if entry.side == "train"}
    documents = [d for d in run.records_if_any(RunFile.DOCUMENTS, Document) if d.id in side] if side else []
    chunks = chunks_by_document(run.records_if_any(RunFile.CHUNKS, Chunk)) if documents else {}
    return sum(len(ranked_evidence(d, chunks.get(d.id, ()), recipe.seed)) for d in documents)


def _trained(samples: Sequence[Sample], recipe: Recipe) -> tuple[int, int]:
    """Return the number of samples that fit into training.max_tokens, and of their tokens.

    The student's tokenizer counts where it is at hand, on some of many samples; else four characters are a token.
    """
    some = samples[:: math.ceil(len(samples) / _SAMPLES_TO_COUNT)] if samples else []
    folder = base_folder(recipe)
    if folder is None:
        sizes = [sum(len(message.content) for message in sample.messages) // 4 for sample in some]
    else:
        from tunewright.models.chat_template import encode, load_tokenizer

        tokenizer = load_tokenizer(folder, recipe.model.added_tokens, recipe.training.reasoning == "keep")
        sizes = [len(encode(tokenizer, sample.messages).input_ids) for sample in some]
    fitting = [size for size in sizes if size <= recipe.training.max_tokens]
    scale = len(samples) / max(1, len(some))
    return round(len(fitting) * scale), round(sum(fitting) * scale)


def base_folder(recipe: Recipe) -> Path | None:
    """Return the base's folder; None where it is a hub's model."""
    return model_folder() if recipe.model.base == EMBEDDED else folder_at_hand(recipe.model.base, recipe.folder)


def known_questions(recipe: Recipe, run: RunFolder) -> list[Question] | None:
    """Return the questions of the user's own exam, or of the one written; None before."""
    if recipe.exam.file:
        name, columns = exam_name(recipe), recipe.synthesis.columns
        return read_own_exam(exam_path(recipe), recipe.refusal, {}, {}, columns, name)[0]
    return run.read_records(RunFile.EXAM, Question) if run.file(RunFile.EXAM).exists() else None


def questions_by_document(recipe: Recipe, run: RunFolder) -> list[int] | None:
    """Return the number of questions on each document; None before they are known."""
    known = known_questions(recipe, run)
    return None if known is None else question_counts(question.document for question in known)
