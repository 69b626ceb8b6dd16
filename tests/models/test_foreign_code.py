"""A model folder that brings code, or names another repository, runs nothing and fetches nothing."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from tunewright.errors import ModelError
from tunewright.models.base_contents import require_base
from tunewright.models.chat_template import load_tokenizer
from tunewright.models.loading import load_base
from tunewright.recipe import Recipe
from tunewright.settings import ModelSettings

ELSEWHERE = "someone/elsewhere"
CONFIG: dict[str, dict[str, Any]] = {
    "classes of its own": {
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": "evil.Tok"}
    },
    "classes of another repository": {"auto_map": {"AutoModelForCausalLM": f"{ELSEWHERE}--evil.Model"}},
    "attention of a repository": {"_attn_implementation": ELSEWHERE},
    "attention by its public name": {"attn_implementation": f"{ELSEWHERE}@main:attend"},
    "experts of a repository": {"experts_implementation": ELSEWHERE},
    "kernels": {"use_kernels": True, "kernel_config": {"RMSNorm": f"{ELSEWHERE}:RMSNorm"}},
    "generation of its own": {"custom_generate": "evil.py", "trust_remote_code": True},
    "another name": {"_name_or_path": ELSEWHERE, "trust_remote_code": True},
    "another base": {"base_model_name_or_path": ELSEWHERE, "peft_type": "LORA"},
    "a tokenizer by class": {"tokenizer_class": "evil.Tok"},
}
TOKENIZER: dict[str, dict[str, Any]] = {
    "classes of its own": {"auto_map": {"AutoTokenizer": ["evil.Tok", "evil.Tok"]}},
    "classes of another repository": {"auto_map": {"AutoTokenizer": [None, f"{ELSEWHERE}--evil.Tok"]}},
    "a class by name": {"tokenizer_class": "evil.Tok", "trust_remote_code": True},
    "another name": {"name_or_path": ELSEWHERE, "processor_class": "evil.Processor"},
}
CASES = [("config.json", name) for name in CONFIG] + [("tokenizer_config.json", name) for name in TOKENIZER]


@pytest.mark.parametrize(("file", "case"), CASES)
def test_no_key_of_a_configuration_runs_code_or_fetches_a_repository(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, case: str
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    canary, calls = tmp_path / "canary", []
    code = (
        f"import pathlib\npathlib.Path({str(canary)!r}).write_text('ran')\nclass Config: pass\nModel = Tok = Config\n"
    )
    for path in ("evil.py", "custom_generate/generate.py", "modeling_llama.py", "__init__.py"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(code)
    changes = (CONFIG if file == "config.json" else TOKENIZER)[case]
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changes))

    def refuse(*address: object, **kwargs: object) -> None:
        calls.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    try:
        require_base(Recipe(model=ModelSettings(base=str(folder), quantization="none")))
        load_tokenizer(folder)
        load_base(folder, "none", "cpu")
    except ModelError as error:  # as good: the folder is refused by name
        assert str(folder) in str(error)
    assert not canary.exists()
    assert calls == []
