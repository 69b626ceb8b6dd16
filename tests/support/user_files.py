"""Every reader of files that a user gives, with good files for it, and those files corrupted; a seed gives the same bytes.

A corruption is missing, empty, cut, flipped, zeros, foreign (another kind of file in its place), swapped (another file
of the same folder), a folder in its place, another encoding, or JSON with a value of another type or shape.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import finished_run
from tunewright.errors import TunewrightError
from tunewright.recipe import Recipe
from tunewright.run_folder import RunFolder


@dataclass(frozen=True)
class Reader:
    """A reader: ``write`` puts good files into an empty folder and returns those to corrupt, ``read`` reads them."""

    name: str
    write: Callable[[Path], list[Path]]
    read: Callable[[Path], object]


def fault(reader: Reader, folder: Path) -> str:
    """Return the fault of a reading, nothing where the files are read or refused by an error that names them."""
    try:
        reader.read(folder)
    except TunewrightError as error:
        return "" if str(folder) in str(error) else f"names no file: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    return ""


def corrupted(reader: Reader, good: Path, folder: Path, seed: int, kind: str = "") -> str:
    """Copy the good files to a folder and corrupt one of them, in this way or any; return how, and which."""
    draw = random.Random(f"{reader.name} {seed}")
    shutil.copytree(good, folder)
    files = [folder / path.relative_to(good) for path in _files(reader, good)]
    file = draw.choice(files)
    kind = kind or draw.choice(sorted(KINDS))
    KINDS[kind](file, files, draw)
    return f"{kind} {file.relative_to(folder)}"


_WRITTEN: dict[Path, list[Path]] = {}


def _files(reader: Reader, good: Path) -> list[Path]:
    return _WRITTEN[good]


def written(reader: Reader, folder: Path) -> Path:
    """Write a reader's good files; return their folder."""
    folder.mkdir(parents=True)
    _WRITTEN[folder] = sorted(reader.write(folder))
    return folder


# --- corruptions


def _cut(file: Path, files: list[Path], draw: random.Random) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: draw.randrange(len(raw) + 1)])


def _flipped(file: Path, files: list[Path], draw: random.Random) -> None:
    raw = bytearray(file.read_bytes() or b"x")
    for _ in range(draw.choice([1, 1, 3, 30])):
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(raw))


def _spliced(file: Path, files: list[Path], draw: random.Random) -> None:
    raw = file.read_bytes()
    a, b = sorted(draw.randrange(len(raw) + 1) for _ in range(2))
    file.write_bytes(raw[:a] + draw.choice([b"", b"\0" * 64, b"\xff\xfe", b'"', b"}", b"[", raw[a:b] * 2]) + raw[b:])


_FOREIGN = [
    b"PK\x03\x04" + bytes(range(200)),
    b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    b"GGUF\x03\0\0\0" + b"\xff" * 40,
    b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 976\n",
    b"#!/bin/sh\nexit 0\n",
    b"\xff\xfeh\0i\0\n\0",
    b"null",
    b"[]\n",
    b"{}\n",
    b"5",
    b'"text"\n',
    b"[" * 5000,
    b'{"a":' * 5000,
    b"key: value\n- item\n",
    b"[section]\nkey = 1\n",
    b"a,b,c\n1,2,3\n",
    b"\n\n\n",
    b"\0" * 300,
    bytes(range(256)) * 8,
]


def _foreign(file: Path, files: list[Path], draw: random.Random) -> None:
    file.write_bytes(draw.choice(_FOREIGN))


def _swapped(file: Path, files: list[Path], draw: random.Random) -> None:
    file.write_bytes(draw.choice(files).read_bytes())


def _folder(file: Path, files: list[Path], draw: random.Random) -> None:
    file.unlink()
    file.mkdir()


def _encoded(file: Path, files: list[Path], draw: random.Random) -> None:
    text = file.read_bytes().decode("utf-8", "replace")
    file.write_bytes(text.encode(draw.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7", "cp037"]), "replace"))


_VALUES: list[Any] = [None, True, -1, 0, 10**30, 1.5, "", "text", "\ud800", [], [1], [[]], {}, {"a": 1}, [None], 1e308]


def _retyped(file: Path, files: list[Path], draw: random.Random) -> None:
    """Replace, drop or add one value of a JSON file or of one of its lines; of any other file, flip bytes."""
    raw = file.read_bytes()
    try:
        lines = [json.loads(raw)]
    except ValueError:
        try:
            lines = [json.loads(line) for line in raw.splitlines()]
        except ValueError:
            lines = []
    if not lines:
        _flipped(file, files, draw)
        return
    number = draw.randrange(len(lines))
    places = list(_places(lines[number]))[:400]
    change = draw.choice(["value", "value", "drop", "add"])
    value = draw.choice(_VALUES)
    if not places or draw.random() < 0.1:
        lines[number] = value
    else:
        holder, key = draw.choice(places)
        if change == "value" or isinstance(holder, list):
            holder[key] = value
        elif change == "drop":
            del holder[key]
        else:
            holder["unheard of"] = value
    file.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


KINDS: dict[str, Callable[[Path, list[Path], random.Random], object]] = {
    "missing": lambda file, files, draw: file.unlink(),
    "empty": lambda file, files, draw: file.write_bytes(b""),
    "cut": _cut,
    "flipped": _flipped,
    "spliced": _spliced,
    "foreign": _foreign,
    "swapped": _swapped,
    "a folder": _folder,
    "encoded": _encoded,
    "retyped": _retyped,
    "retyped again": _retyped,
}


# --- readers


def _rows(folder: Path) -> list[Path]:
    rows = [{"question": f"Who leads town {n}?", "answer": f"Mayor {n} – “Zoë”", "document": f"d{n}"} for n in range(9)]
    choices = [{"question": f"{n}?", "choices": ["a", "b", "c"], "answer": "ABC"[n % 3]} for n in range(9)]
    table = "question;answer;document\n" + "".join(";".join(f'"{v}"' for v in row.values()) + "\n" for row in rows)
    contents = {"exam.csv": table, "exam.jsonl": _lines(rows), "choices.json": json.dumps(choices)}
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def _lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _each(*reads: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return a reading by each of these; the first error stands for all, unless a later one is no error of ours."""

    def read(folder: Path) -> None:
        errors: list[TunewrightError] = []
        for part in reads:
            try:
                part(folder)
            except TunewrightError as error:
                errors.append(error)
        for error in errors:
            if str(folder) not in str(error):
                raise error
        if errors:
            raise errors[0]

    return read


def _read_exams(folder: Path) -> object:
    from tunewright.synthesis.own_exam import read_own_exam

    return _each(
        *(lambda f, n=n: read_own_exam(f / n, "No.", {}, {}) for n in ("exam.csv", "exam.jsonl", "choices.json"))
    )(folder)


def _read_benchmarks(folder: Path) -> object:
    from tunewright.public_benchmarks.tasks import find_task

    return _each(*(lambda f, n=n: find_task(str(f / n)) for n in ("exam.csv", "exam.jsonl", "choices.json")))(folder)


def _chats(folder: Path) -> list[Path]:
    messages = [
        {"messages": [{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": "é"}]} for n in range(9)
    ]
    pairs = [{"prompt": f"Q{n}?", "chosen": "Yes.", "rejected": "No."} for n in range(9)]
    contents = {
        "chats.jsonl": _lines(messages),
        "chats.json": json.dumps([{"instruction": "Do.", "output": "Done."}] * 4),
        "chats.csv": "prompt,completion\n" + "".join(f"Q{n},A{n}\n" for n in range(9)),
        "pairs.jsonl": _lines(pairs),
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def _read_chats(folder: Path) -> object:
    from tunewright.curation.chat_formats import read_own_data
    from tunewright.curation.preference_pairs import no_pairs_error, read_own_pairs
    from tunewright.models.data_sources import chat_paths
    from tunewright.recipe import parse_recipe
    from tunewright.records import Rejection

    names = ("chats.jsonl", "chats.json", "chats.csv")
    recipe = parse_recipe({"preference": {"data": ["pairs.jsonl"]}}, folder)

    def parts(part: Path) -> object:
        return read_own_data(chat_paths(parse_recipe({"synthesis": {"data": [f"{n}[0:3]" for n in names]}}, part)))

    def pairs(part: Path) -> None:
        made = [pair for _, pair in read_own_pairs(recipe)]
        if made and all(isinstance(pair, Rejection) for pair in made):
            raise no_pairs_error(False, [pair for pair in made if isinstance(pair, Rejection)])

    return _each(*(lambda f, n=n: read_own_data([f / n]) for n in names), parts, pairs)(folder)


def _recipes(folder: Path) -> list[Path]:
    from tunewright.recipe import dump_recipe

    (folder / "recipe.toml").write_text(dump_recipe(Recipe()), encoding="utf-8")
    schema = {"type": "object", "properties": {"severity": {"enum": ["high", "low"]}}}
    (folder / "schema.json").write_text(json.dumps(schema))
    (folder / "axolotl.yaml").write_text("base_model: a/b\nadapter: lora\ndatasets:\n- path: x.jsonl\n  type: alpaca\n")
    return [folder / name for name in ("recipe.toml", "schema.json", "axolotl.yaml")]


def _read_recipes(folder: Path) -> object:
    from tunewright.importers.import_config import read_config, tool_of
    from tunewright.recipe import load_recipe
    from tunewright.synthesis.extraction import read_schema

    def imported(part: Path) -> object:
        return tool_of(read_config(part / "axolotl.yaml"), part / "axolotl.yaml")

    return _each(lambda f: load_recipe(f / "recipe.toml"), lambda f: read_schema(f / "schema.json"), imported)(folder)


def _run(folder: Path) -> list[Path]:
    run, _ = finished_run.write(folder / "run", docs=finished_run.documents(6))
    journal = run.journal("teacher.jsonl")
    entry = {"key": "k", "stage": "synth", "model": "m", "text": "t", "finish": "stop", "num_prompt_tokens": 1}
    journal.append({**entry, "num_tokens": 1, "seconds": 1}, {**entry, "key": "l", "num_tokens": 2, "seconds": 1})
    run.journal("answers-journal.jsonl").append({"outputs": {"k": {"text": "x"}}}, {"outputs": {}})
    run.log("started")
    shutil.copytree(folder / "run", folder / "other")
    return [path for path in (folder / "run").rglob("*") if path.is_file() and not path.name.startswith(".")]


def _read_run(folder: Path) -> object:
    from tunewright.commands.compare import read_entries
    from tunewright.commands.exam import show_exam
    from tunewright.commands.status import show_report, show_status
    from tunewright.pipeline import states
    from tunewright.recipe import load_recipe
    from tunewright.reporting.stage import report
    from tunewright.teacher.journal import CallJournal

    path = folder / "run"
    run = RunFolder.open(path)
    return _each(
        lambda f: show_status(run),
        lambda f: report(run, load_recipe(run.file("recipe.toml"))),
        lambda f: show_exam(run),
        lambda f: show_report(run),
        lambda f: read_entries([f / "other", path]),
        lambda f: CallJournal(run.journal("teacher.jsonl")),
        lambda f: run.journal("answers-journal.jsonl"),
        lambda f: states(run, None),
    )(folder)


def _training_data(folder: Path) -> list[Path]:
    from support import data_run

    data_run.write(folder / "run", documents=finished_run.documents(4))
    return [path for path in (folder / "run").rglob("*") if path.is_file() and not path.name.startswith(".")]


def _read_training_data(folder: Path) -> object:
    from tunewright.commands.inspect import inspect_run
    from tunewright.commands.trace import show_trace
    from tunewright.records import Sample, read_jsonl

    run = RunFolder.open(folder / "run")

    def traced(part: Path) -> None:
        path = run.file("samples.jsonl")
        sample = next(iter(read_jsonl(path, Sample)), None) if path.is_file() else None
        if sample:
            show_trace(run, sample.id)

    return _each(lambda f: inspect_run(run), traced)(folder)


def _marks(folder: Path) -> list[Path]:
    from support.marked_run import ARMS, downloaded, filled
    from tunewright.commands.mark import write_page

    run, _ = finished_run.write(folder / "run", docs=finished_run.documents(6))
    write_page(run, ARMS)
    downloaded(run, folder / "ann.json", lambda item: "tie", num=3)
    filled(run, folder / "bob.csv", ["tuned", "base", "tie"])
    return [folder / "ann.json", folder / "bob.csv", folder / "run" / "marking.key.json"]


def _read_marks(folder: Path) -> object:
    from support.marked_run import ARMS
    from tunewright.commands.mark import read_marks

    run = RunFolder(folder / "run")
    return _each(lambda f: read_marks(run, [f / "ann.json"], ARMS), lambda f: read_marks(run, [f / "bob.csv"], ARMS))(
        folder
    )


def _base(folder: Path) -> list[Path]:
    from support.tiny import make_model

    make_model(folder / "base")
    return [path for path in (folder / "base").iterdir() if path.is_file()]


def _read_base(folder: Path) -> object:
    from tunewright.models.chat_template import encode, load_tokenizer
    from tunewright.models.loading import load_base
    from tunewright.models.source import token_counter
    from tunewright.models.tensors import read_token_vectors
    from tunewright.records import Message

    base = folder / "base"
    messages = [Message(role="user", content="Why?"), Message(role="assistant", content="So.")]
    return _each(
        lambda f: token_counter(str(base))("one two"),
        lambda f: encode(load_tokenizer(base), messages),
        lambda f: load_base(base, "none", "cpu"),
        lambda f: read_token_vectors(str(base)),
    )(folder)


def _adapter(folder: Path) -> list[Path]:
    from support.tiny import make_model
    from tunewright.models.loading import attach_adapter, load_base, save_adapter
    from tunewright.settings import TrainingSettings

    make_model(folder / "base")
    model = attach_adapter(load_base(folder / "base", "none", "cpu"), TrainingSettings(rank=2), 1)
    save_adapter(model, folder / "adapter", "base")
    return [path for path in (folder / "adapter").iterdir() if path.is_file()]


def _read_adapter(folder: Path) -> object:
    from tunewright.models.loading import load_adapter, load_base

    return load_adapter(load_base(folder / "base", "none", "cpu"), folder / "adapter")


def _checkpoint(folder: Path) -> list[Path]:
    from tunewright.records import digest
    from tunewright.storage import file_digest

    path = folder / "step-0000003"
    path.mkdir()
    names = ("adapter.safetensors", "optimizer.safetensors", "rng.safetensors")
    for name in names:
        (path / name).write_bytes(name.encode())
    state = {"step": 3, "total_steps": 9, "settings": {"a": 1}, "loop": {"b": [1]}, "numbers": {"c": 1.5}}
    state["digests"] = {name: file_digest(path / name) for name in names}
    (path / "state.json").write_text(json.dumps({**state, "digest": digest(state)}))
    return list(path.iterdir())


def _read_checkpoint(folder: Path) -> object:
    from tunewright.training.checkpoint import latest

    return latest(folder)


def _export(folder: Path) -> list[Path]:
    from tunewright.export.receipt import write_receipt

    (folder / "export").mkdir()
    (folder / "export" / "config.json").write_text('{"a": 1}')
    (folder / "export" / "README.md").write_text("A model.")
    write_receipt(folder / "export", {"made": "of this", "files of": {"x": [1]}})
    return [path for path in (folder / "export").iterdir()]


def _read_export(folder: Path) -> object:
    from tunewright.export.receipt import verify

    return verify(folder / "export")


def _documents(folder: Path) -> list[Path]:
    contents = {"a.md": "# Title\n\nText é.\n", "b.jsonl": _lines([{"text": "One."}, {"text": "Two."}])}
    contents |= {"c.csv": "text;title\nOne;1\nTwo;2\n", "d.html": "<p>One</p>", "e.txt": "Plain text."}
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def _read_documents(folder: Path) -> object:
    from tunewright.documents.readers import READERS

    return [READERS[path.suffix](path) for path in sorted(folder.iterdir()) if path.is_file()]


READERS = (
    Reader("exam", _rows, _read_exams),
    Reader("benchmark", _rows, _read_benchmarks),
    Reader("data", _chats, _read_chats),
    Reader("recipe", _recipes, _read_recipes),
    Reader("documents", _documents, _read_documents),
    Reader("marks", _marks, _read_marks),
    Reader("run folder and journals", _run, _read_run),
    Reader("training data", _training_data, _read_training_data),
    Reader("receipt", _export, _read_export),
    Reader("checkpoint", _checkpoint, _read_checkpoint),
    Reader("base model", _base, _read_base),
    Reader("adapter", _adapter, _read_adapter),
)
