"""The stages ingest (files to documents and chunks) and split (documents to sides)."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tunewright import console
from tunewright.documents.chunking import chunk_document
from tunewright.documents.fetch import Fetched, fetch_all
from tunewright.documents.markup import BOILERPLATE, ENCODING, ReadDocument
from tunewright.documents.readers import READERS
from tunewright.documents.recognition import is_available
from tunewright.documents.sandbox import TIMEOUT_S, read_files
from tunewright.documents.split import split_documents
from tunewright.errors import DocumentError
from tunewright.models.source import token_counter
from tunewright.recipe import Recipe
from tunewright.records import Chunk, Document, Rejection, StageSummary, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import is_url
from tunewright.storage import file_digest, leaves
from tunewright.text.languages import LANGUAGES, document_languages
from tunewright.text.repeated_text import without_repeated_text

_UNKNOWN_FORMAT = "unknown format"
_UNREADABLE = "unreadable"
_LINK_AWAY = "a link out of the named folders"
_LANGUAGE_DOCUMENTS, _LANGUAGE_CHARACTERS = 200, 4000
_MAX_WARNINGS = 5  # failed files named on the screen; rejected.jsonl has all of them


def source_files(recipe: Recipe) -> list[tuple[str, Path]]:
    """Return every file under the recipe's paths, readable or not, with a unique name, sorted by name.

    A name is relative to the folder that the recipe names. If two folders hold the same name, the later file's name
    starts with its folder. Hidden files and folders are skipped unless the recipe names them. Links are followed, each
    folder once, as far as they stay in a folder that the recipe names: one that leaves it is counted and not read.

    Raises:
        DocumentError: the recipe names no paths, or one does not exist.
    """
    if not recipe.documents.paths:
        raise DocumentError(
            "the recipe names no documents",
            "documents.paths is empty",
            "hold out a part of your chats as the exam: --set exam.held_out_share=0.25, or bring one: exam.file"
            if recipe.synthesis.data
            else "name a folder or files: --set 'documents.paths=[\"FOLDER\"]', or write a recipe: "
            "tunewright init FOLDER",
        )
    files: dict[str, Path] = {}
    seen: set[str] = set()
    named = _named(recipe)
    for path in recipe.documents.paths:
        if is_url(path):
            continue
        root = recipe.resolve(path)
        try:
            root.stat()
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            raise DocumentError(
                f"there is no file or folder {path}" if missing else f"cannot read {path}",
                f"documents.paths names it, and {root} " + ("does not exist" if missing else f"gives: {error}"),
                "correct the path in the recipe: it is relative to the recipe's own folder",
            ) from error
        target = root.resolve()
        folder = target.name if target.is_dir() else target.parent.name
        for name, file in _walk(root, named) if root.is_dir() else [(root.name, root)]:
            real = os.path.realpath(file)
            if real not in seen:
                seen.add(real)
                files[_unique(_printable(name), files, _printable(folder))] = file
    return sorted(files.items())


def source_urls(recipe: Recipe) -> list[str]:
    """Return the URLs under the recipe's paths, each once, in order."""
    return list(dict.fromkeys(path for path in recipe.documents.paths if is_url(path)))


def num_sources(recipe: Recipe) -> int:
    """Return how many files and URLs the recipe names, readable or not."""
    return len(source_files(recipe)) + len(source_urls(recipe))


def _named(recipe: Recipe) -> list[Path]:
    """Return the folders and files that the recipe names, without links: naming a link's target asks for it."""
    named: list[Path] = []
    for path in recipe.documents.paths:
        if is_url(path):
            continue
        with suppress(ValueError):  # a zero byte in the path: source_files refuses it
            named.append(Path(os.path.realpath(recipe.resolve(path))))
    return named


def _walk(root: Path, named: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield the files under a folder with their relative names; a loop of links is entered once.

    A folder that cannot be listed, or whose link leaves the named folders, is yielded too, so that it is counted.
    """
    entered: set[str] = set()
    unlisted: list[OSError] = []
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=unlisted.append):
        real = os.path.realpath(folder)
        if real in entered or (Path(folder) / "run.json").is_file():  # a run folder holds no documents
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        away = [name for name in subfolders if leaves(Path(folder) / name, named)]
        for name in away:
            subfolders.remove(name)
            yield (Path(folder) / name).relative_to(root).as_posix(), Path(folder) / name
        for name in sorted(names):
            if not name.startswith("."):
                file = Path(folder) / name
                yield file.relative_to(root).as_posix(), file
    for error in unlisted:
        yield Path(error.filename).relative_to(root).as_posix(), Path(error.filename)


def _printable(name: str) -> str:
    """Return a file name as valid Unicode; bytes that are not UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _unique(name: str, taken: Container[str], folder: str = "") -> str:
    """Return the first unused name: the name itself, with the folder before it, or with a number after it."""
    names = chain([name], [f"{folder}/{name}"] if folder else [], (f"{name} ({i})" for i in count(2)))
    return next(candidate for candidate in names if candidate not in taken)


def source_digest(recipe: Recipe) -> str:
    """Return a digest of all source files and URLs; none is parsed or fetched, and unknown formats are not opened.

    Raises:
        DocumentError: the recipe names no paths, or one does not exist.
    """
    named = _named(recipe)
    files = [(name, _content_digest(file, named)) for name, file in source_files(recipe)]
    reads_scans = is_available() and any(name.lower().endswith(".pdf") for name, _ in files)
    return digest(*files, *source_urls(recipe), *(["text recognition"] if reads_scans else []))


def _content_digest(file: Path, named: Sequence[Path]) -> str:
    if _skip_reason(file, named):
        return ""
    try:
        return file_digest(file)
    except OSError as error:
        return f"unreadable: {error.errno}"


def _skip_reason(file: Path, named: Sequence[Path]) -> str:
    """Return why no reader gets a file; empty if one does."""
    try:
        if leaves(file, named):
            return _LINK_AWAY
        if file.is_dir():
            return _UNREADABLE
        if file.suffix.lower() not in READERS:
            return _UNKNOWN_FORMAT
        return "" if file.is_file() else "not a regular file"
    except OSError:  # its folder can be listed, but not entered
        return _UNREADABLE


def ingest(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Read all source files and URLs; write documents.jsonl and chunks.jsonl.

    Raises:
        DocumentError: there are no files, none of them could be read, or a URL is refused or not reached.
        ModelError: the student's tokenizer, which sizes the chunks, cannot be loaded.
        StageError: the process that reads documents does not start.
    """
    files = source_files(recipe)
    fetched = _fetched(run.file(RunFile.FETCHED), source_urls(recipe))
    named = [*_named(recipe), run.file(RunFile.FETCHED).resolve()]
    files += [(item.url, run.file(RunFile.FETCHED) / item.file) for item in fetched]
    if not files:
        raise DocumentError(
            f"there are no files in {', '.join(recipe.documents.paths)}",
            "hidden files are ignored",
            f"add documents; readable formats: {_formats()}",
        )
    count_tokens = token_counter(recipe.model.base, recipe.folder)
    documents, rejections, parts = _read_documents(files, named)
    documents = [_with_origin(document, fetched) for document in documents]
    documents, repeated = without_repeated_text(documents)
    parts += [_rejection(f"{source}#repeated text", BOILERPLATE, what) for source, what in repeated.items()]
    run.reject("ingest", [*rejections, *parts])
    if not documents:
        raise DocumentError(
            f"none of {len(files)} file(s) could be read",
            "\n  ".join(_describe(rejection) for rejection in rejections[:3]),
            f"all reasons are in {run.file(RunFile.REJECTED)}; readable formats: {_formats()}",
        )
    _warn_of_failures(rejections)
    _warn_of_parts(parts)
    documents, chunks, late = _chunked(documents, count_tokens, recipe.documents.chunk_tokens)
    if late:
        rejections += late
        run.reject("ingest", [*rejections, *parts])
    run.write_records(RunFile.DOCUMENTS, documents)
    run.write_records(RunFile.CHUNKS, chunks)
    return StageSummary(
        num_in=len(documents) + len(rejections),
        num_out=len(documents),
        rejected=dict(Counter(rejection.reason for rejection in rejections)),
        figures={
            "files": len(files) - len(fetched),
            **({"pages fetched": len(fetched)} if fetched else {}),
            "chunks": len(chunks),
            "tokens": sum(chunk.num_tokens for chunk in chunks),
            **_noted(documents, parts),
        },
    )


def _fetched(folder: Path, urls: Sequence[str]) -> list[Fetched]:
    """Return what the URLs give, from the folder where it has them.

    Raises:
        DocumentError: a URL is refused or not reached. The others are kept.
    """
    if not urls:
        return []
    with console.progress("fetching", len(urls)) as bar:
        fetched, failures = fetch_all(urls, folder, lambda _: bar.advance())
    if failures:
        lines = [f"{url}: {reason}" for url, reason in failures.items()]
        raise DocumentError(
            f"{len(failures)} of {len(urls)} URL(s) cannot be fetched",
            "\n  ".join(lines[:_MAX_WARNINGS]),
            "remove them from documents.paths, or save the pages and name the files; the same command tries again",
        )
    return fetched


def _with_origin(document: Document, fetched: Sequence[Fetched]) -> Document:
    """Return the document of a URL with when and from where it came; a title for a page that has none."""
    for item in fetched:
        if document.source == item.url or document.source.startswith(f"{item.url}#"):
            title = document.title
            if title == Path(item.file).stem:
                title = Path(unquote(urlsplit(item.final_url).path)).stem or str(urlsplit(item.final_url).hostname)
            metadata = {**document.metadata, "fetched_on": item.time, "url": item.final_url}
            return document.model_copy(update={"title": title, "metadata": metadata})
    return document


def _chunked(
    documents: Sequence[Document], count_tokens: Callable[[str], int], max_tokens: int
) -> tuple[list[Document], list[Chunk], list[Rejection]]:
    """Return the documents with their chunks, and those whose chunking takes longer than a reading may."""
    done: list[Document] = []
    chunks: list[Chunk] = []
    late: list[Rejection] = []
    with console.progress("chunking", len(documents)) as bar:
        for document in documents:
            try:
                chunks += chunk_document(document, _within(TIMEOUT_S, count_tokens), max_tokens)
                done.append(document)
            except TimeoutError:
                detail = f"{len(document.text):,} characters: chunking took longer than {TIMEOUT_S:g} s; split the file"
                late.append(_rejection(document.source, "timed out", detail))
                console.warning(_describe(late[-1]))
            bar.advance()
    if not done:
        raise DocumentError("no document is left", _describe(late[0]), "split the files")
    return done, chunks, late


def _within(seconds: float, count_tokens: Callable[[str], int]) -> Callable[[str], int]:
    """Return the function that raises TimeoutError once this thread has computed for so long."""
    end = time.thread_time() + seconds

    def count(text: str) -> int:
        if time.thread_time() > end:
            raise TimeoutError
        return count_tokens(text)

    return count


def _read_documents(
    files: list[tuple[str, Path]], named: Sequence[Path]
) -> tuple[list[Document], list[Rejection], list[Rejection]]:
    """Return the files' documents without empty documents and exact duplicates, the rejections, and the parts left out.

    Documents that may not be read right are named in warnings.
    """
    readable: list[tuple[str, Path]] = []
    rejections: list[Rejection] = []
    parts: list[Rejection] = []
    doubts: list[str] = []
    for name, file in files:
        if reason := _skip_reason(file, named):
            rejections.append(_rejection(name, reason))
        else:
            readable.append((name, file))
    documents: dict[str, Document] = {}
    first_source: dict[str, str] = {}
    readings = read_files([file for _, file in readable])
    with console.progress("reading", len(readable)) as bar:
        for (name, _), (_, reading) in zip(readable, readings, strict=True):
            for failure in reading.failures:
                rejections.append(_rejection(_source(name, failure.part), failure.reason, failure.detail))
            for read in reading.documents:
                source = _unique(_source(name, read.part), documents)
                parts += [_rejection(_source(source, p.part), p.reason, p.detail) for p in read.left_out]
                doubts += [f"{source}: {doubt}" for doubt in read.doubts]
                if not read.sections:
                    rejections.append(_rejection(source, "empty document"))
                elif read.text in first_source:
                    detail = f"same text as {first_source[read.text]}"
                    rejections.append(_rejection(source, "duplicate document", detail))
                else:
                    first_source[read.text] = source
                    documents[source] = _document(read, source)
            bar.advance()
    _warn(doubts, "more documents may not be read right: look at documents.jsonl")
    return list(documents.values()), rejections, parts


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


def _describe(rejection: Rejection) -> str:
    detail = f" ({rejection.detail})" if rejection.detail else ""
    return f"{rejection.id}: {rejection.reason}{detail}"


def _warn_of_failures(rejections: list[Rejection]) -> None:
    """Print the first files that could not be read; files of unknown formats are only counted."""
    failed = [rejection for rejection in rejections if rejection.reason != _UNKNOWN_FORMAT]
    _warn([_describe(rejection) for rejection in failed], f"more were left out: see {RunFile.REJECTED}")
    unknown = Counter(Path(r.id).suffix or "no extension" for r in rejections if r.reason == _UNKNOWN_FORMAT)
    if unknown:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in unknown.most_common(_MAX_WARNINGS))
        console.warning(f"{unknown.total()} file(s) of unknown format were left out: {counts}")


def _warn(messages: list[str], more: str) -> None:
    """Print the first messages, and how many more there are."""
    for message in messages[:_MAX_WARNINGS]:
        console.warning(message)
    if len(messages) > _MAX_WARNINGS:
        console.warning(f"{len(messages) - _MAX_WARNINGS} {more}")


def _warn_of_parts(parts: list[Rejection]) -> None:
    """Print the parts of documents that were not read; boilerplate is only counted."""
    lost = [_describe(part) for part in parts if part.reason != BOILERPLATE]
    _warn(lost, f"more parts were left out: see {RunFile.REJECTED}")
    kinds = Counter(part.id.rpartition("#")[2] for part in parts if part.reason == BOILERPLATE)
    if kinds:
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_MAX_WARNINGS))
        num_documents = len({part.id.rpartition("#")[0] for part in parts if part.reason == BOILERPLATE})
        console.line(f"boilerplate left out of {num_documents} document(s): {counts}")


def _noted(documents: list[Document], parts: list[Rejection]) -> dict[str, str]:
    """Return the counts of languages, of parts that were not read by reason, and of encodings other than UTF-8.

    Of many documents, evenly spaced ones tell the languages.
    """
    reasons = Counter(part.reason for part in parts)
    encodings = Counter(d.metadata[ENCODING] for d in documents if ENCODING in d.metadata)
    some = documents[:: math.ceil(len(documents) / _LANGUAGE_DOCUMENTS)]
    codes = document_languages({document.id: document.text[:_LANGUAGE_CHARACTERS] for document in some}).values()
    languages = Counter(LANGUAGES[code].name if code in LANGUAGES else code for code in codes)
    counts = {"languages": languages, "parts left out": reasons, "encodings": encodings}
    return {name: ", ".join(f"{n} {what}" for what, n in c.most_common()) for name, c in counts.items() if c}


def split(run: RunFolder, recipe: Recipe) -> StageSummary:
    """Write split.jsonl: the side of each document.

    Raises:
        DocumentError: the documents cannot be split, or none is left to train on.
    """
    documents = run.read_records(RunFile.DOCUMENTS, Document)
    settings = recipe.split
    entries = split_documents(documents, settings.exam_share, recipe.curation.near_duplicate, recipe.seed)
    num_exam = sum(entry.side == "exam" for entry in entries)
    if num_exam == len(entries) and not recipe.synthesis.data:
        raise DocumentError(
            "the exam takes all documents",
            f"split.exam_share is {settings.exam_share}, so no document is left to train on",
            "lower it: --set split.exam_share=0.25",
        )
    run.write_records(RunFile.SPLIT, entries)
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
