"""The exported Ollama templates, rendered by Go's own text/template, against the chat templates they come from.

Run: PYTHONPATH=tests python benchmarks/ollama_template.py (needs Go: apt-get install golang-go)
Writes benchmarks/results/ollama_template.json: for each kind of template, how many of 200 prompts are token for token
those that training renders, and a digest of what Go rendered, by which a test checks our own renderer without Go.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from support.exported import digest_of, random_conversations
from support.families import WORDS
from tunewright.export.gguf.ollama import go_template
from tunewright.export.gguf.vocabulary import adds_bos
from tunewright.models.chat_template import encode_prompt, load_tokenizer
from tunewright.records import Message

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "ollama_template.json"


def tokenizer_of(kind: str) -> Any:
    """Return the tokenizer with that family's template."""
    with tempfile.TemporaryDirectory() as folder:
        WORDS[kind].write(Path(folder))
        return load_tokenizer(Path(folder))


def render_in_go(jobs: list[dict[str, Any]]) -> list[list[str]]:
    """Return the prompts of each job's conversations."""
    program = ROOT / "benchmarks" / "ollama_template_go" / "main.go"
    done = subprocess.run(["go", "run", program], input=json.dumps(jobs).encode(), capture_output=True, check=True)
    prompts: list[list[str]] = json.loads(done.stdout)
    return prompts


def count_identical(tokenizer: Any, bos: str, conversations: list[list[Message]], prompts: list[str]) -> int:
    """Return how many prompts are token for token those of training."""
    return sum(
        tokenizer(bos + prompt, add_special_tokens=False)["input_ids"] == encode_prompt(tokenizer, messages)
        for messages, prompt in zip(conversations, prompts, strict=True)
    )


def main() -> None:
    results = {}
    for kind in WORDS:
        tokenizer = tokenizer_of(kind)
        bos = tokenizer.bos_token if adds_bos(tokenizer) else ""
        template, shape = go_template(tokenizer, bool(bos))
        samples = [random_conversations(), random_conversations(spaced=True)]
        jobs = [
            {"template": template, "conversations": [[m.model_dump() for m in c] for c in each]} for each in samples
        ]
        plain, spaced = render_in_go(jobs)
        results[kind] = {
            "conversations": len(plain),
            "identical": count_identical(tokenizer, bos, samples[0], plain),
            "identical_with_white_space_around": count_identical(tokenizer, bos, samples[1], spaced),
            "trimmed_roles": sorted(shape.trimmed),
            "go_digest": digest_of(plain),
        }
        print(kind, results[kind])
    version = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout.split()[2]
    content = {"command": "python benchmarks/ollama_template.py", "go": version, "templates": results}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
