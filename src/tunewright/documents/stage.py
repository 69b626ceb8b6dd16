"""The stages ingest (files to documents and chunks) and split (documents to sides)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterator
from itertools import chain, count
from pathlib import Path

from tunewright import console
from tunewright.documents.chunking import chunk
from tunewright.documents.markup import ReadDocument
from tunewright.documents.readers import READERS
from tunewright.documents.sandbox import read_files
from tunewright.documents.split import split_documents
from tunewright.errors import DocumentError
from tunewright.models.source import token_counter
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Rejection, StageSummary, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.storage import file_digest

DOCUMENTS = RunFile.DOCUMENTS
CHUNKS = RunFile.CHUNKS
SPLIT = RunFile.SPLIT

_UNKNOWN_FORMAT = "unknown format"
_UNREADABLE = "unreadable"
_SHOWN = 5  # failed files named on the screen; rejected.jsonl has them all


def source_files(recipe: Recipe) -> list[tuple[str, Path]]:
    """Return every file under the recipe's paths, readable or not, with a unique name, sorted by name.

    A name is relative to the folder that was given. When two folders hold the same name, the later folder's file
    has its folder before it. Hidden files and folders are left out unless they are named themselves; links to
    folders are followed, each folder once.

    Raises:
        DocumentError: no paths are given, or one does not exist.
    """
    if not recipe.documents.paths:
        raise DocumentError(
            "the recipe names no documents",
            "documents.paths is empty",
            "name a folder or files: --set 'documents.paths=[\"FOLDER\"]', or write a recipe: tunewright init FOLDER",
        )
    files: dict[str, Path] = {}
    seen: set[str] = set()
    for given in recipe.documents.paths:
        root = recipe.resolve(given)
        try:
            root.stat()
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            raise DocumentError(
                f"there is no file or folder {given}" if missing else f"cannot read {given}",
                f"documents.paths names it, and {root} " + ("does not exist" if missing else f"gives: {error}"),
                "mend the path in the recipe: it is relative to the recipe's own folder",
            ) from error
        place = root.resolve()
        folder = place.name if place.is_dir() else place.parent.name
        for name, file in _walk(root) if root.is_dir() else [(root.name, root)]:
            real = os.path.realpath(file)
            if real not in seen:
                seen.add(real)
                files[_unique(_printable(name), files, _printable(folder))] = file
    return sorted(files.items())


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files under a folder with their relative names; a loop of links is entered once.

    A folder that may not be listed is yielded too, so that it is counted.
    """
    entered: set[str] = set()
    closed: list[OSError] = []
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=closed.append):
        real = os.path.realpath(folder)
        if real in entered or (Path(folder) / "run.json").is_file():  # a run folder holds no documents
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                file = Path(folder) / name
                yield file.relative_to(root).as_posix(), file
    for error in closed:
        yield Path(error.filename).relative_to(root).as_posix(), Path(error.filename)


def _printable(name: str) -> str:
    """Return a file name as valid Unicode; bytes that are not UTF-8 show as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _unique(name: str, taken: Container[str], folder: str = "") -> str:
    """Return the name itself, or with the folder before it, or with a number after it: the first that is free."""
    names = chain([name], [f"{folder}/{name}"] if folder else [], (f"{name} ({i})" for i in count(2)))
    return next(candidate for candidate in names if candidate not in taken)


def source_digest(recipe: Recipe) -> str:
    """Return what names the content of all source files; no file is parsed, and unknown formats are not opened.

    Raises:
        DocumentError: no paths are given, or one does not exist.
    """
    return digest(*[(name, _content_digest(file)) for name, file in source_files(recipe)])


def _content_digest(file: Path) -> str:
    if _unfitness(file):
        return ""
    try:
        return file_digest(file)
    except OSError as error:
        return f"unreadable: {error.errno}"


def _unfitness(file: Path) -> str:
    """Return why a file is not even given to a reader, or nothing."""
    try:
        if file.is_dir():
            return _UNREADABLE
        if file.suffix.lower() not in READERS:
            return _UNKNOWN_FORMAT
        return "" if file.is_file() else "not a regular file"
    except OSError:  # it stands in a folder that may be listed, not entered
        return _UNREADABLE


def ingest(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Read all source files; write documents.jsonl and chunks.jsonl.

    Raises:
        DocumentError: there are no files, or none of them could be read.
        ModelError: the student's tokenizer, in whose tokens chunks are sized, cannot be had.
        StageError: the process that reads documents does not start.
    """
    files = source_files(recipe)
    if not files:
        raise DocumentError(
            f"there are no files in {', '.join(recipe.documents.paths)}",
            "hidden files do not count",
            f"put documents there; readable formats: {_formats()}",
        )
    count_tokens = token_counter(recipe.model.base, recipe.folder)
    documents, rejections = _read_documents(files, recipe)
    rejected = run.reject("ingest", rejections)
    if not documents:
        raise DocumentError(
            f"{len(files)} file(s), none could be read",
            "\n  ".join(_told(rejection) for rejection in rejections[:3]),
            f"all reasons stand in {run.file('rejected.jsonl')}; readable formats: {_formats()}",
        )
    _report(rejections)
    chunks: list[Chunk] = []
    with console.progress("chunking", len(documents)) as bar:
        for document in documents:
            chunks += chunk(document, count_tokens, recipe.documents.chunk_tokens)
            bar.advance()
    run.write_records(DOCUMENTS, documents)
    run.write_records(CHUNKS, chunks)
    return StageSummary(
        num_in=len(documents) + len(rejections),
        num_out=len(documents),
        rejected=rejected,
        figures={
            "files": len(files),
            "chunks": len(chunks),
            "tokens": sum(piece.num_tokens for piece in chunks),
        },
    )


def _read_documents(files: list[tuple[str, Path]], recipe: Recipe) -> tuple[list[Document], list[Rejection]]:
    """Return the documents of the files, without empty ones and exact duplicates, and what was left out."""
    rejections = [_rejection(name, reason) for name, file in files if (reason := _unfitness(file))]
    fit = [(name, file) for name, file in files if not _unfitness(file)]
    documents: dict[str, Document] = {}
    first_source: dict[str, str] = {}
    readings = read_files([file for _, file in fit])
    with console.progress("reading", len(fit)) as bar:
        for (name, _), (_, reading) in zip(fit, readings, strict=True):
            for failure in reading.failures:
                rejections.append(_rejection(_source(name, failure.part), failure.reason, failure.detail))
            for read in reading.documents:
                source = _unique(_source(name, read.part), documents)
                if not read.sections:
                    rejections.append(_rejection(source, "empty document"))
                elif read.text in first_source:
                    detail = f"same text as {first_source[read.text]}"
                    rejections.append(_rejection(source, "duplicate document", detail))
                else:
                    first_source[read.text] = source
                    documents[source] = _document(read, source)
            bar.advance()
    return list(documents.values()), rejections


def _source(name: str, part: str) -> str:
    return f"{name}#{part}" if part else name


def _document(read: ReadDocument, source: str) -> Document:
    return Document(
        id=digest(source, read.text),
        title=read.title,
        source=source,
        text=read.text,
        sections=read.sections,
        metadata=read.metadata,
    )


def _rejection(source: str, reason: str, detail: str = "") -> Rejection:
    return Rejection(stage="ingest", id=source, reason=reason, detail=detail)


def _formats() -> str:
    return " ".join(READERS)


def _told(rejection: Rejection) -> str:
    detail = f" ({rejection.detail})" if rejection.detail else ""
    return f"{rejection.id}: {rejection.reason}{detail}"


def _report(rejections: list[Rejection]) -> None:
    """Name the first files that could not be read; formats that no reader knows are only counted."""
    failed = [rejection for rejection in rejections if rejection.reason != _UNKNOWN_FORMAT]
    for rejection in failed[:_SHOWN]:
        console.warning(_told(rejection))
    if len(failed) > _SHOWN:
        console.warning(f"{len(failed) - _SHOWN} more were left out: see rejected.jsonl")
    unknown = Counter(Path(r.id).suffix or "no extension" for r in rejections if r.reason == _UNKNOWN_FORMAT)
    if unknown:
        named = ", ".join(f"{count} {suffix}" for suffix, count in unknown.most_common(_SHOWN))
        console.warning(f"{unknown.total()} file(s) of unknown format were left out: {named}")


def split(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Decide each document's side; write split.jsonl.

    Raises:
        DocumentError: an exam is wanted and there is nothing to split, or nothing is left to learn from.
    """
    documents = run.read_records(DOCUMENTS, Document)
    settings = recipe.split
    entries = split_documents(documents, settings.exam_share, recipe.curation.near_duplicate, recipe.seed)
    num_exam = sum(entry.side == "exam" for entry in entries)
    if num_exam == len(entries) and not recipe.synthesis.data:
        raise DocumentError(
            "the exam keeps all documents for itself",
            f"split.exam_share is {settings.exam_share}, so none is left to learn from",
            "lower it: --set split.exam_share=0.25",
        )
    run.write_records(SPLIT, entries)
    return StageSummary(
        num_in=len(documents),
        num_out=len(entries),
        rejected=run.reject("split", []),
        figures={
            "train": len(entries) - num_exam,
            "exam": num_exam,
            "groups": len({entry.group for entry in entries}),
        },
    )
