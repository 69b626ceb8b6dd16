"""Planted instructions that are detected, and the rate of false alarms on clean text.

    python benchmarks/planted_instructions.py [FOLDER...] [--out benchmarks/results/planted_instructions.json]

Planted: tests/text/planted.json, alone and inside prose. Clean: the example abstracts and incident reports, the topics and
docstrings of Python's standard library, and the .md and .txt files of each FOLDER.
"""

from __future__ import annotations

import argparse
import ast
import json
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics

from tunewright.text.injection import injection_fault

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "src/tunewright/examples"
AROUND = ("{}", "The survey was done in May.\n\n{}\n\nThe rest is in Table 2.", "Visits rose. {} Costs fell.")
SHORTEST = 80  # characters of a docstring


def docstrings() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                if len(text) >= SHORTEST:
                    yield text


def texts_in(folder: Path) -> list[str]:
    files = (path for path in sorted(folder.rglob("*")) if path.suffix in (".md", ".txt"))
    return [path.read_text(encoding="utf-8") for path in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/planted_instructions.json")
    options = parser.parse_args()
    planted = json.loads((ROOT / "tests/text/planted.json").read_text(encoding="utf-8"))
    found = {
        language: sum(all(injection_fault(around.format(text)) for around in AROUND) for text in texts)
        for language, texts in planted.items()
    }
    clean = {
        "example abstracts": texts_in(EXAMPLES / "abstracts"),
        "example incident reports": texts_in(EXAMPLES / "incidents"),
        "topics of the Python manual": list(topics.topics.values()),
        "docstrings of Python's standard library": list(docstrings()),
        **{f"folder {folder.name}": texts_in(folder) for folder in options.folders},
    }
    alarms = {}
    for name, texts in clean.items():
        faults = [fault for text in texts if (fault := injection_fault(text))]
        alarms[name] = {
            "texts": len(texts),
            "characters": sum(map(len, texts)),
            "false_alarms": len(faults),
            "rate": round(len(faults) / max(1, len(texts)), 4),
            "of": faults[:5],
        }
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "planted": {language: len(texts) for language, texts in planted.items()},
        "detected": found,
        "clean": alarms,
    }
    options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
