"""An adapter from elsewhere never runs code or hangs: its files and settings are checked before a library opens them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunewright.errors import ModelError
from tunewright.models import capped_programs
from tunewright.models.chat_template import load_tokenizer
from tunewright.models.loading import attach_adapter, load_adapter, load_base, save_adapter
from tunewright.models.reward import load_reward
from tunewright.models.source import read_config
from tunewright.retrieval.sentence_model import SentenceModel
from tunewright.settings import TrainingSettings

WEIGHTS = "adapter_model.safetensors"


class Canary:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._file),)


@pytest.fixture(autouse=True)
def _in_half_a_second(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(capped_programs, "MAX_CPU_S", 0.5)
    capped_programs._child.stop()
    yield
    capped_programs._child.stop()


@pytest.fixture(scope="module")
def good(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "good"
    base = load_base(tiny_model, "none", "cpu")
    save_adapter(attach_adapter(base, TrainingSettings(rank=4), 1), folder, "base")
    return folder


def edited(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def as_pickle(folder: Path, name: str = "adapter_model.bin") -> None:
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Canary(folder / "CANARY")))


def as_special(folder: Path, name: str, make: Callable[[str], object] = os.mkfifo) -> None:
    (folder / name).unlink(missing_ok=True)
    make(str(folder / name))


def as_socket(path: str) -> None:
    here = Path.cwd()
    os.chdir(Path(path).parent)  # the path of a socket has at most 107 bytes
    socket.socket(socket.AF_UNIX).bind(Path(path).name)
    os.chdir(here)


def no_object(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("[]")


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle": (as_pickle, "adapter_model.bin: a pickle"),
    "another pickle": (lambda folder: as_pickle(folder, "adapter_model.pt"), "adapter_model.pt: a pickle"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
    "fifo for weights": (lambda folder: as_special(folder, WEIGHTS), "it is a FIFO"),
    "fifo for settings": (lambda folder: as_special(folder, "adapter_config.json"), "it is a FIFO"),
    "fifo beside": (lambda folder: as_special(folder, "README.md"), "it is a FIFO"),
    "device": (lambda folder: as_special(folder, WEIGHTS, lambda p: Path(p).symlink_to("/dev/zero")), "it is a device"),
    "socket": (lambda folder: as_special(folder, "x.json", as_socket), "it is a socket"),
    "megatron": (lambda folder: edited(folder, megatron_config={"x": 1}, megatron_core="evilmod"), "megatron_"),
    "megatron's module alone": (lambda folder: edited(folder, megatron_core="evilmod"), "megatron_core is not"),
    "files of an initialization": (lambda f: edited(f, corda_config={"cache_file": "x.pt"}), "corda_config is not"),
    "copied layers": (lambda folder: edited(folder, layer_replication=[[0, 9999]]), "layer_replication is not"),
    "a key that nobody knows": (lambda folder: edited(folder, hook="os.system"), "hook is not"),
    "a class to import": (lambda f: edited(f, auto_mapping={"parent_library": "evilmod"}), "auto_mapping is not"),
    "another kind": (lambda folder: edited(folder, peft_type="IA3"), "only LORA"),
    "a rank that fills the memory": (lambda folder: edited(folder, r=10**9), "a rank is not"),
    "a rank of one layer": (lambda folder: edited(folder, rank_pattern={"q_proj": 10**9}), "a rank is not"),
    "regex": (lambda folder: edited(folder, target_modules="((([a-z0-9._])+)+)+!"), "it ran for more than"),
    "no regex": (lambda folder: edited(folder, exclude_modules="(("), "no regular expression"),
    "no object": (no_object, "no JSON object"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_adapter_is_refused_by_name(case: str, good: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(good, tmp_path / "x")
    change, cause = HOSTILE[case]
    change(folder)
    with pytest.raises(ModelError, match="cannot load the adapter") as caught:
        load_adapter(load_base(tiny_model, "none", "cpu"), folder)
    assert cause in caught.value.cause
    assert not (folder / "CANARY").exists()


def test_what_peft_and_others_write_loads(good: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(good, tmp_path / "x")
    names = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    layers = {name.rpartition(".")[2] for name in names}
    edited(folder, target_modules=rf".*\.({'|'.join(layers)})", use_of_tomorrow=None, another=False, eva_config={})
    edited(folder, auto_mapping={"base_model_class": "LlamaModel", "parent_library": "transformers.models.llama"})
    (folder / "training_args.bin").write_bytes(b"nobody reads it")
    load_adapter(load_base(tiny_model, "none", "cpu"), folder)


def index_of_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "pytorch_model.bin"}}')


def index_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../model.safetensors"}}')


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(folder / "CANARY")))


def with_an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "evil/base"}')


@pytest.mark.parametrize("change", [index_of_pickles, index_outside, only_pickles, with_an_adapter])
def test_no_pickle_of_a_base_reaches_a_loader(change: Callable[[Path], None], tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    change(folder)
    loaders: list[Callable[[Path], object]] = [lambda path: load_base(path, "none", "cpu")]
    if change is not with_an_adapter:
        loaders.append(SentenceModel)
    for load in loaders:
        with pytest.raises(ModelError):
            load(folder)
    assert not (folder / "CANARY").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"])
def test_a_base_with_a_fifo_is_refused_at_once(name: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    as_special(folder, name)
    loaders: list[Callable[[Path], object]] = [lambda path: load_base(path, "none", "cpu"), load_tokenizer]
    loaders += [SentenceModel, lambda path: load_reward(path, "cpu")]
    for load in [*loaders, *([read_config] if name == "config.json" else [])]:
        with pytest.raises(ModelError) as caught:
            load(folder)
        assert "it is a FIFO" in caught.value.cause or "sequence classifier" in caught.value.hint
