"""Data by name: files, folders, ranges of rows, .parquet and data sets of the hub, all as local files that are read."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tunewright import console
from tunewright.errors import DocumentError, reading, special_file
from tunewright.models import hub_errors
from tunewright.models.source import cache_folder
from tunewright.recipe import Recipe, at_home
from tunewright.records import digest
from tunewright.settings import HUB
from tunewright.storage import file_digest, leaves, write_atomic
from tunewright.text.rows import file_rows
from tunewright.text.tables import TABLES

PARQUET = ".parquet"
_SUFFIXES = frozenset({".jsonl", ".json", PARQUET, *TABLES})
_RANGE = re.compile(r"(.+?)(?:\[(\d*):(\d*)\])?", re.DOTALL)
_HUB_NAME = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:/([\w.-]+))?(?:@([\w./-]+))?(?::([\w.-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ALSO_KEPT = ("group",)  # of a row whose columns are mapped


class _HubName(NamedTuple):
    repo: str
    config: str | None
    revision: str
    split: str


def chat_paths(recipe: Recipe) -> list[Path]:
    """Return the local files and folders of synthesis.data; see ``local_paths``."""
    return local_paths(recipe, recipe.synthesis.data, "synthesis.data", recipe.synthesis.columns)


def exam_path(recipe: Recipe) -> Path:
    """Return the local file of exam.file: as it is, or as JSON lines where it is a folder, .parquet, or a part.

    Raises:
        DocumentError: see ``local_paths``.
    """
    name, setting = recipe.exam.file, "exam.file"
    path = recipe.resolve(name)
    if not _is_converted(name) and path.suffix.lower() != PARQUET and not path.is_dir():
        return path
    files = [file for part in local_paths(recipe, (name,), setting) for file in _files(part)]
    if not files:
        raise DocumentError(
            f"there is no exam at {path}", "the folder holds no rows", "correct exam.file in the recipe"
        )
    return _as_jsonl((row for file in files for row in _rows(file)), [*map(file_digest, files)], Path(name).stem)


def exam_name(recipe: Recipe) -> str:
    """Return what messages call the exam: its path, or its name where ``exam_path`` is a file of the cache."""
    name = recipe.exam.file
    return name if is_hub(name) else str(recipe.resolve(name))


def renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return a row with the mapped columns that it has by our names, and all others as they are."""
    ours = {name: row[theirs] for name, theirs in columns.items() if theirs in row}
    return {key: value for key, value in row.items() if key not in columns.values()} | ours


def local_paths(
    recipe: Recipe, names: Sequence[str], setting: str, columns: Mapping[str, str] | None = None
) -> list[Path]:
    """Return local files or folders that hold the named data.

    Data of the hub, .parquet files, ranges of rows and rows whose columns are renamed are written as JSON lines into
    the cache; all else is read where it is.

    Args:
        recipe: resolves relative paths.
        names: "FILE", "FOLDER" or "hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]", each with an optional "[START:END]".
        setting: that names them, for messages.
        columns: our name of a column → its name in the data; no others are read then.

    Raises:
        DocumentError: a data set cannot be read, lacks a column, or the package datasets is missing.
    """
    return [path for name in names for path in _local(recipe, name, setting, dict(columns or {}))]


def hub_revisions(names: Sequence[str]) -> list[str]:
    """Return the commit of each data set of the hub among the names."""
    return [_commit(*_hub_name(name, "")[:3:2]) for name in (_split_range(name)[0] for name in names) if is_hub(name)]


def is_hub(name: str) -> bool:
    """Return whether a name is that of a data set of the hub."""
    return name.startswith(HUB)


def _is_converted(name: str) -> bool:
    return is_hub(name) or _split_range(name)[1] != (0, None)


def _local(recipe: Recipe, name: str, setting: str, columns: dict[str, str]) -> list[Path]:
    if is_hub(name):
        return [_hub_file(name, setting, columns)]
    path = recipe.folder / at_home(name)
    bare, rows = (name, (0, None)) if path.exists() else _split_range(name)
    path = recipe.folder / at_home(bare)
    files = _files(path)
    if rows == (0, None) and not columns and not any(file.suffix.lower() == PARQUET for file in files):
        return [path]  # its reader says what is missing
    if not files:
        raise DocumentError(f"there is no data at {path}", "", f"correct {setting} in the recipe")
    if rows != (0, None):
        key = [*map(file_digest, files), rows, columns]
        every = (row for file in files for row in _rows(file))
        return [_as_jsonl(_renamed(islice(every, *rows), columns, name), key, path.stem)]
    return [
        _as_jsonl(_renamed(_rows(file), columns, str(file)), [file_digest(file), columns], file.stem)
        if columns or file.suffix.lower() == PARQUET
        else file
        for file in files
    ]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return inner_files(path, _SUFFIXES)
    _require_file(path)
    return [path] if path.is_file() else []


def _require_file(path: Path) -> None:
    """Refuse a FIFO, a device or a socket before anything opens it, which could wait for ever."""
    if fault := special_file(path):
        raise DocumentError(f"cannot read the data {path}", fault, "correct the path, or remove it")


def inner_files(folder: Path, suffixes: Container[str]) -> list[Path]:
    """Return the files under a folder with these endings; a link that leaves the folder is warned of and left out.

    Raises:
        DocumentError: one of them is a FIFO, a device or a socket.
    """
    named = sorted(file for file in folder.rglob("*") if file.suffix.lower() in suffixes)
    for file in named:
        _require_file(file)
    files = [file for file in named if file.is_file()]
    away = [file for file in files if leaves(file, [folder.resolve()])]
    if away:
        console.warning(f"{len(away)} link(s) out of {folder} are not followed, such as {away[0].name}")
    return [file for file in files if file not in away]


def _split_range(name: str) -> tuple[str, tuple[int, int | None]]:
    """Return the name without its range of rows, and the range."""
    match = _RANGE.fullmatch(name)
    if not match:
        return name, (0, None)
    bare, start, end = match.groups()
    return bare, (int(start or 0), int(end) if end else None)


def _rows(path: Path) -> Iterator[Any]:
    """Yield the rows of a file; one that cannot be read as a text, for its reader to count."""
    with reading("data", path, "correct the path, or save the file again", DocumentError):
        if path.suffix.lower() == PARQUET:
            yield from _parquet_rows(path)
        else:
            yield from (row.fault or row.content for row in file_rows(path))


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise _extra_missing(f"{path} is a .parquet file", "pyarrow") from error
    for batch in ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _extra_missing(what: str, package: str) -> DocumentError:
    return DocumentError(
        f"{what}, and the package {package} is not installed",
        "it comes with an optional part of tunewright",
        "pip install 'tunewright[hub]'",
    )


def _renamed(rows: Iterable[Any], columns: Mapping[str, str], name: str) -> Iterator[Any]:
    """Yield the rows with the mapped columns by our names.

    Raises:
        DocumentError: the first row lacks a mapped column.
    """
    for number, row in enumerate(rows):
        if not columns or not isinstance(row, dict):
            yield row
            continue
        missing = [column for column in columns.values() if column not in row]
        if missing and not number:
            raise DocumentError(
                f"{name} has no column {missing[0]}",
                f"its columns are {', '.join(map(str, row))}",
                "correct synthesis.columns in the recipe",
            )
        also = {key: row[key] for key in _ALSO_KEPT if key in row}
        yield also | {ours: row.get(theirs) for ours, theirs in columns.items()}


def _as_jsonl(rows: Iterable[Any], key: Sequence[object], stem: str) -> Path:
    """Return a file of JSON lines in the cache; it is written unless it is there."""
    name = re.sub(r"[^\w.-]+", "-", stem)[:60]
    path = cache_folder() / "data" / f"{name}-{digest(*key)}.jsonl"
    if not path.is_file():
        lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False, default=str) for row in rows)
        write_atomic(path, (f"{line}\n".encode("utf-8", "surrogatepass") for line in lines), private=True)
    return path


def _hub_name(name: str, setting: str) -> _HubName:
    match = _HUB_NAME.fullmatch(name)
    if not match:
        raise DocumentError(
            f"{name} is no name of a data set of the hub",
            "",
            f"write {setting or 'it'} as hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]",
        )
    repo, config, revision, split = match.groups()
    return _HubName(repo, config, revision or "main", split or "train")


@lru_cache(maxsize=64)
def _commit(repo: str, revision: str) -> str:
    """Return the commit of a revision; without the hub, the one that it had last."""
    if _COMMIT.fullmatch(revision):
        return revision
    last = cache_folder() / "data" / f"revision-{digest(repo, revision)}"
    try:
        from huggingface_hub import HfApi

        commit = str(HfApi().dataset_info(repo, revision=revision).sha)
    except Exception as error:  # huggingface_hub raises errors of four other libraries
        if last.is_file():
            return last.read_text(encoding="utf-8")
        raise _unreadable(repo, error) from error
    write_atomic(last, commit.encode())
    return commit


def _unreadable(repo: str, error: Exception) -> DocumentError:
    headline, cause, hint = hub_errors.explain(error, repo, writing=False) or (
        f"cannot read the data set {repo}",
        hub_errors.clean_message(str(error)) or type(error).__name__,
        "check the name, its configuration and its split",
    )
    return DocumentError(headline, cause, hint)


def _hub_file(name: str, setting: str, columns: dict[str, str]) -> Path:
    """Return the rows of a data set of the hub as JSON lines; no code of its repository runs."""
    bare, rows = _split_range(name)
    hub = _hub_name(bare, setting)
    commit = _commit(hub.repo, hub.revision)

    def read() -> Iterator[Any]:
        try:
            import datasets
        except ImportError as error:
            raise _extra_missing(f"{name} is a data set of the hub", "datasets") from error
        try:  # since version 4, datasets runs no script of a repository
            data = datasets.load_dataset(hub.repo, hub.config, revision=commit, split=hub.split)
        except Exception as error:  # datasets raises errors of five other libraries
            raise _unreadable(hub.repo, error) from error
        start, end = rows
        yield from data.select(range(min(start, len(data)), min(len(data), end or len(data))))

    key = [hub.repo, hub.config, commit, hub.split, rows, columns]
    return _as_jsonl(_renamed(read(), columns, bare), key, f"{hub.repo}-{hub.split}")
