"""From an empty folder to a verdict by clicks alone, with the server killed in each stage: real commands, a tiny model.

benchmarks/studio_by_clicks.py goes the same way with the embedded model.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.studio_browser import CHROMIUM
from support.studio_person import Way, from_an_empty_folder_to_a_verdict, person
from tunewright.examples import FOLDER

pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,  # tests/studio has a quicker one of each kind: forms, jobs that outlive the server, pages
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]


def small_way(folder: Path, model: Path) -> Way:
    """Chats alone, part of them held out as the exam, and a tiny model."""
    rows = (FOLDER / "triage.train.jsonl").read_text(encoding="utf-8").splitlines()[:90]
    (folder / "reports.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    settings = {
        "model-base": str(model), "model-quantization": "none", "exam-retention_items": "0", "training-epochs": "1",
        "evaluation-max_new_tokens": "8", "training-max_tokens": "1024",
    }  # fmt: skip
    lines = '\n[retrieval]\nmodel = ""\n\n[curation]\nembedding_duplicate = 0\n'
    return Way("reports", folder / "reports.jsonl", settings, lambda old: '{"severity": "low"}', lines)


def test_from_an_empty_folder_to_a_verdict(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "" if name.startswith("CUDA") else "1")
    (tmp_path / "folder").mkdir()
    with person(tmp_path / "folder", small_way(tmp_path, tiny_model)) as someone:
        from_an_empty_folder_to_a_verdict(someone)
        assert "rejected by hand" in someone.run.file("data.html").read_text(encoding="utf-8")
        assert someone.faults == [] and len(someone.kills) >= 4
