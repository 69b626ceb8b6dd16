"""Exams of documents in other languages: init and run --until synth on folders of short documents, checked question by question.

    python benchmarks/languages.py FOLDER [--out benchmarks/results/languages.json]

FOLDER has a folder a language, by its ISO code, with one document a file. The record says how many questions of which
kinds the rules wrote, how many golds stand in their passages letter for letter, and which words of English are in
questions, golds or refusals (words of the document itself are none).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tunewright.recipe import load_recipe
from tunewright.records import Document, Question
from tunewright.run_folder import RunFolder

# Words that none of the measured languages has.
ENGLISH = re.compile(r"\b(?:the|of|which|what|who|this|that|give|answer|blank|according|belongs)\b", re.IGNORECASE)


def run(*words: str) -> None:
    """Run a command of tunewright; its output is shown when it fails."""
    done = subprocess.run([sys.executable, "-m", "tunewright", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-2000:]}")


def measured(folder: Path, work: Path) -> dict[str, Any]:
    """Return the figures of one language."""
    recipe = work / "recipe.toml"
    run("init", str(folder), "-o", str(recipe))
    run("run", str(recipe), "--dir", str(work / "run"), "--until", "synth")
    opened = RunFolder(work / "run")
    documents = {document.id: document for document in opened.read_records("documents.jsonl", Document)}
    questions = opened.read_records("exam.jsonl", Question)
    samples = (opened.file("samples.jsonl")).read_text(encoding="utf-8").splitlines()
    own = {word.lower() for document in documents.values() for word in re.findall(r"[a-z]+", document.text, re.I)}
    written = [text for q in questions for text in (q.question, q.gold)] + [load_recipe(recipe).refusal]
    english = Counter(w.lower() for text in written for w in ENGLISH.findall(text) if w.lower() not in own)
    answerable = [q for q in questions if q.answerable]
    golds = [(q.document, q.gold[3:] if q.options else q.gold) for q in answerable]  # without the option's letter
    in_passage = sum(gold in documents[document].text for document, gold in golds)
    return {
        "documents": len(documents),
        "questions": len(questions),
        "kinds": dict(Counter(q.kind if q.answerable else "unanswerable" for q in questions)),
        "golds": len(golds),
        "golds_in_their_documents": in_passage,
        "english_words": dict(english),
        "samples": len(samples),
    }


def main() -> None:
    """Measure every language of the folder and record it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/languages.json"))
    options = parser.parse_args()
    record = {}
    for folder in sorted(path for path in options.folder.iterdir() if path.is_dir()):
        with TemporaryDirectory() as work:
            record[folder.name] = measured(folder, Path(work))
        print(folder.name, json.dumps(record[folder.name], ensure_ascii=False), flush=True)  # noqa: T201
        options.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
