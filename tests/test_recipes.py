"""The shipped recipes: each loads, has a true header, and trains a tiny model of its family."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from support import ROOT
from support.able_teacher import able
from support.families import make_family
from support.faulty_server import Answer, Seen, fake_teacher
from support.tiny import make_reward_model
from support.triage import triage
from tunewright import pipeline
from tunewright.commands import plan
from tunewright.errors import DocumentError
from tunewright.examples import abstracts_folder
from tunewright.models.hardware import Shape
from tunewright.models.memory_plan import choose, predict_memory
from tunewright.models.student import student_tokenizer
from tunewright.recipe import Recipe, load_recipe
from tunewright.records import PreferencePair, Sample
from tunewright.synthesis.magpie import user_header
from tunewright.training.compute_path import plain_path_reason
from tunewright.training.stage import read_training_data

pytestmark = pytest.mark.slow

FOLDER = ROOT / "recipes"
PATHS = sorted(FOLDER.glob("*.toml"))
PLACEHOLDER = "../papers"

# Of the config.json that each base is published with: hidden, intermediate, layers, heads, key heads, vocabulary, tied.
_PUBLISHED = {
    "HuggingFaceH4/zephyr-7b-beta": ("mistral", 4096, 14336, 32, 32, 8, 32000, False),
    "mistralai/Mistral-7B-v0.1": ("mistral", 4096, 14336, 32, 32, 8, 32000, False),
    "mistralai/Mistral-7B-Instruct-v0.2": ("mistral", 4096, 14336, 32, 32, 8, 32000, False),
    "meta-llama/Llama-3.1-8B": ("llama", 4096, 14336, 32, 32, 8, 128256, False),
    "meta-llama/Llama-3.2-3B": ("llama", 3072, 8192, 28, 24, 8, 128256, True),
    "Qwen/Qwen2.5-0.5B-Instruct": ("qwen2", 896, 4864, 24, 14, 2, 151936, True),
    "Qwen/Qwen2.5-3B": ("qwen2", 2048, 11008, 36, 16, 2, 151936, True),
    "Qwen/Qwen2.5-7B-Instruct": ("qwen2", 3584, 18944, 28, 28, 4, 152064, False),
}
_KEYS = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_KEYS += ("num_key_value_heads", "vocab_size", "tie_word_embeddings")
_WINDOWS = {"mistralai/Mistral-7B-v0.1": 4096, "HuggingFaceH4/zephyr-7b-beta": 4096}
_FAMILY = {"zephyr": "zephyr", "Mistral": "mistral", "Llama-3": "llama3", "Qwen2.5": "qwen2"}
# What a run here has to change: where models, teacher and documents are, and how much there is to do.
_CHANGED = {
    "documents": {"paths"},
    "teacher": {"url", "model", "api_key_env", "quantization"},
    "synthesis": {"general_samples"},
    "curation": {"reward"},
    "model": {"base"},
    "training": {"batch_size", "epochs", "max_tokens"},
}

# What each recipe is for: without it, it is another one.
_ABOUT = {
    "academic_qa_zephyr": ["HuggingFaceH4/zephyr-7b-beta", "nf4-double", "refusal", "unanswerable"],
    "incident_triage": ["Qwen/Qwen2.5-0.5B-Instruct", "none", "extraction", "../src/tunewright/examples/incidents"],
    "instruct_dpo": ["meta-llama/Llama-3.2-3B", "general_samples=1500", "best-of-n", "../reward-model"],
    "know_your_papers": ["Qwen/Qwen2.5-7B-Instruct", "self", "passage-qa", "coverage=1", PLACEHOLDER],
    "raw_documents_llama": ["meta-llama/Llama-3.1-8B", "text_share=1.0", "text_overlap=64", PLACEHOLDER],
    "t4_7b": ["mistralai/Mistral-7B-Instruct-v0.2", "nf4-double", "compute='auto'", "local", PLACEHOLDER],
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_is_what_its_name_says(path: Path) -> None:
    text = repr(load_recipe(path))
    assert [word for word in _ABOUT[path.stem] if word not in text] == []
    assert f"recipes/{path.name}" in (FOLDER.parent / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_the_three_bases_of_instruction_tuning_each_have_a_teacher_of_their_family() -> None:
    ways = [load_recipe(FOLDER / "instruct_dpo.toml", more) for path, more in _runs() if path.stem == "instruct_dpo"]
    assert {(one.model.base, one.teacher.model, *user_header(one)) for one in ways} == {
        (
            "meta-llama/Llama-3.2-3B",
            "meta-llama/Llama-3.1-8B-Instruct",
            "<|start_header_id|>user<|end_header_id|>\n\n",
            ("<|eot_id|>",),
        ),
        ("Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-7B-Instruct", "<|im_start|>user\n", ("<|im_end|>",)),
        ("mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.2", "[INST]", ("[/INST]",)),
    }


def header(path: Path) -> str:
    """Return the comment that a recipe begins with, without its signs."""
    lines = path.read_text(encoding="utf-8").splitlines()
    top = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in top)


@dataclass(frozen=True)
class Command:
    """A command that a header names."""

    verb: str
    path: str
    assignments: tuple[str, ...]


def commands(path: Path) -> list[Command]:
    found = []
    for line in re.findall(r"tunewright (?:plan|run|chat) .*", header(path).replace("\\\n", " ")):
        _, verb, target, *rest = shlex.split(line)
        settings = [after for word, after in zip(rest, rest[1:], strict=False) if word == "--set"]
        found.append(Command(verb, target, tuple(settings)))
    return found


def _runs() -> list[tuple[Path, tuple[str, ...]]]:
    """Return every way in which a header says to run its recipe."""
    return [(path, one.assignments) for path in PATHS for one in commands(path) if one.verb == "run"]


def runs() -> list[Any]:
    first = {path: number for number, (path, _) in reversed(list(enumerate(_runs())))}  # one way of each by default
    return [
        pytest.param(path, more, id=f"{path.stem}-{n}", marks=[pytest.mark.slow] if n != first[path] else [])
        for n, (path, more) in enumerate(_runs())
    ]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_header_names_its_own_file_and_what_it_needs(path: Path) -> None:
    named = commands(path)
    assert {"plan", "run"} <= {command.verb for command in named}
    assert {command.path for command in named if command.verb != "chat"} == {f"recipes/{path.name}"}
    assert {command.path for command in named if command.verb == "chat"} <= {f"runs/{path.stem}"}
    assert all(word in header(path) for word in ("Documents: ", "GPU: ", "isk: ", "eacher"))
    load_recipe(path)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_memory_and_disk_in_a_header_are_those_of_the_plan(path: Path, tmp_path: Path) -> None:
    bases: dict[str, Recipe] = {}
    for command in commands(path):
        recipe = load_recipe(path, command.assignments if command.verb != "chat" else ())
        bases.setdefault(recipe.model.base, recipe)
    figures = re.findall(r"GPU: ([\d.]+) GiB at least.*?isk: ([\d.]+) GB", header(path), re.DOTALL)
    computed = []
    for name, recipe in bases.items():
        config = dict(zip(_KEYS, _PUBLISHED[name], strict=True)) | {"sliding_window": _WINDOWS.get(name)}
        (tmp_path / "config.json").write_text(json.dumps(config))
        shape = Shape.of(config)
        at_hand = recipe.model_copy(update={"model": recipe.model.model_copy(update={"base": str(tmp_path)})})
        assert plain_path_reason(at_hand) == ""
        least = predict_memory(recipe, shape, choose(recipe, shape, 0.0, fast=True, gpu=True), fast=True).total
        weights = shape.block_weights + shape.vocabulary_weights
        computed.append((f"{least / 2**30:.1f}", f"{2 * weights / 1e9:.1f}"))
    assert figures == computed


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_plan_needs_no_network(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(path)
    if recipe.documents.paths == (PLACEHOLDER,):
        assert "which is not there yet" in header(path)
        with pytest.raises(DocumentError, match="papers"):
            plan.show_plan(recipe, tmp_path / "run")
        recipe = load_recipe(path, [f"documents.paths=['{abstracts_folder()}']"])
    plan.show_plan(recipe, tmp_path / "run")
    assert f"known once {recipe.model.base} is fetched" in " ".join(capsys.readouterr().err.split())


@cache
def _student(kind: str, folder: Path) -> Path:
    """Write the family's tiny model; it ends its answers at many tokens, since a random one hardly ever would."""
    student = make_family(kind, folder / kind)
    end = json.loads((student / "config.json").read_text())["eos_token_id"]
    (student / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, *range(280, 340)]}))
    return student


def _documents(recipe: Recipe, folder: Path) -> Path:
    """Return a few of the documents that the recipe names; some abstracts as .txt where it wants the user's own."""
    own = recipe.documents.paths == (PLACEHOLDER,)
    given = abstracts_folder() if own else recipe.resolve(recipe.documents.paths[0])
    folder.mkdir()
    for source in sorted(given.glob("*.md"))[:4]:
        shutil.copy(source, folder / (f"{source.stem}.txt" if own else source.name))
    return folder


def _teacher(seen: Seen) -> Answer:
    return triage(seen) if "For each field, give its value" in str(seen.body.get("messages")) else able(seen)


def _kept(recipe: Recipe) -> dict[str, Any]:
    """Return all settings but those that a run here has to change."""
    return recipe.with_absolute_paths().model_dump(exclude=_CHANGED)


@pytest.mark.parametrize(("path", "assignments"), runs())
def test_two_steps_on_a_tiny_model_of_the_family(
    path: Path, assignments: tuple[str, ...], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shipped = load_recipe(path, assignments)
    kind = next(kind for name, kind in _FAMILY.items() if name in shipped.model.base)
    with fake_teacher(_teacher) as server:
        changes = [
            *assignments,
            f"model.base={_student(kind, tmp_path_factory.getbasetemp())}",
            f"documents.paths=['{_documents(shipped, tmp_path / 'papers')}']",
            f"teacher.url={server.url}",
            "teacher.api_key_env=",
            "training.epochs=1",
        ]
        if shipped.teacher.url == "self":
            changes += ["teacher.model=fake"]
        if shipped.curation.reward:
            changes += [f"curation.reward={make_reward_model(tmp_path / 'reward')}", "synthesis.general_samples=6"]
        if shipped.synthesis.extraction_schema:  # the tiny vocabulary takes some three times as many tokens
            changes += ["training.max_tokens=2048"]
        recipe = load_recipe(path, changes)
        assert _kept(recipe) == _kept(shipped)
        before = [stage.name for stage in pipeline.stages_of(recipe)]
        run = pipeline.run(recipe, tmp_path / "run", until=before[before.index("train") - 1])
        data = read_training_data(run, recipe.with_absolute_paths(), student_tokenizer(recipe))
        recipe = load_recipe(path, [*changes, f"training.batch_size={-(-len(data.examples) // 2)}"])
        pipeline.run(recipe, tmp_path / "run", until="train")
    rows = [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["phase"] == "sft" and row["step"]] == [1, 2]
    assert (run.file("adapter") / "adapter_model.safetensors").is_file()
    assert run.file("checkpoints/sft/epoch-1").is_dir()
    _check_what_it_learned_from(run, shipped, rows, server.seen)


def _check_what_it_learned_from(run: Any, shipped: Recipe, rows: list[dict[str, Any]], seen: list[Seen]) -> None:
    """Hold what a recipe is about: its tasks, its raw text, its general samples, its pairs."""
    tasks = {one.task for one in run.read_records("train.jsonl", Sample)} if run.file("train.jsonl").exists() else set()
    if shipped.training.text_share == 1:
        assert tasks == ({"view"} if shipped.synthesis.views else set())
        return
    wanted = {"premise": {"false-premise", "true-premise"}, "refusal": {"refusal", "grounded"}}
    assert tasks >= set().union(*(wanted.get(task, {task}) for task in shipped.synthesis.tasks))
    headers = {one.body["prompt"] for one in seen if "prompt" in one.body}
    assert headers == ({user_header(shipped)[0]} if shipped.synthesis.general_samples else set())
    assert ("general" in tasks) == bool(headers)
    if shipped.preference.make:
        origins = {pair.origin for pair in run.read_records("pairs.jsonl", PreferencePair)}
        assert "best-of-n" in origins and len(origins) > 1
        assert any(row["phase"] == "dpo" and row["step"] for row in rows)
