"""Draws docs/images/studio-*.png: the pages of the studio over a made-up run, light and dark; needs Chromium.

PYTHONPATH=src:tests .venv/bin/python docs/studio_images.py
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from playwright.sync_api import sync_playwright  # noqa: E402

from support import data_run, finished_run  # noqa: E402
from support.studio_browser import CHROMIUM, studio_of  # noqa: E402
from tunewright.commands.mark import write_page  # noqa: E402
from tunewright.html.render import render  # noqa: E402
from tunewright.recipe import Recipe, dump_recipe  # noqa: E402
from tunewright.records import Question, Rejection  # noqa: E402
from tunewright.run_folder import RunFolder  # noqa: E402
from tunewright.settings import DocumentSettings  # noqa: E402
from tunewright.studio.jobs import Jobs, start_time  # noqa: E402
from tunewright.studio.runs import key_of  # noqa: E402

SIZE = {"width": 960, "height": 720}
COLORS = 48
PLAN = """plan for runs/abstracts
  stage      state   work                                        about
  ingest     new                                                 2 s
  exam       new     20-180 calls, 3,200-28,800 tokens           2 min
  synth      new     144-144 calls, 23,040-23,040 tokens         1 min
  train      new     117 samples, 66 steps, 12,870 tokens        2 min
  evaluate   new     420 answers, 800 of general ability         5 min
memory of training: about 1.2 GiB at most
"""


def job(folder: Path, kind: str, subject: str, words: list[str], log: str, exit_code: int | None) -> None:
    """Write a job as a worker leaves it; without an exit code, one that runs: as this very process."""
    jobs = Jobs(folder)
    row = (kind, subject, json.dumps(words), time.time(), time.time() - 95, os.getpid(), start_time(os.getpid()))
    with jobs._change() as connection:
        cursor = connection.execute(
            "INSERT INTO jobs (kind, subject, lane, arguments, state, created, started, child, child_start) "
            "VALUES (?, ?, 'cpu', ?, 'running', ?, ?, ?, ?)", row,
        )  # fmt: skip
    number = int(cursor.lastrowid or 0)
    jobs.log_path(number).write_text(log)
    if exit_code is not None:
        jobs.note_end(number, exit_code)


def write(folder: Path) -> None:
    """Write three runs, a recipe and their jobs."""
    run, _ = finished_run.write(folder / "runs/abstracts")
    samples = data_run.write_samples(run, finished_run.documents())
    run.write_records("train.jsonl", samples[3:])
    rejected = [Rejection(stage="curate", id=s.id, reason="near duplicate", task=s.task) for s in samples[:3]]
    run.write_records("rejected.jsonl", rejected)
    edit = {"id": "e", "time": "2026-11-30T10:00:00+0000", "who": "Ann", "action": "reject", "sample": samples[4].id}
    run.journal("edits.jsonl").append({**edit, "note": "the sentence names no year"})
    run.file("adapter").mkdir()
    export = run.file("exports/gguf-q8_0")
    export.mkdir(parents=True)
    (export / "model.gguf").write_bytes(b"0" * 1_450_000)
    certificate = "- exam: 60 of 60 answers score the same\n- distributions: 512 tokens, top-1 agreement 99.8%\n"
    (export / "certificate.md").write_text(certificate)
    finished_run.reseal(run)
    write_page(run, ("base", "tuned"))
    run.write("report.html", render("invalid.html", {"title": "abstracts", "version": "", "faults": []}))
    summary = {"wins": {"base": 3, "tuned": 9, "neither": 2}, "num_marks": 14, "markers": ["Ann", "Ben"]}
    run.write_json("marking.json", {**summary, "e_value": {"value": 23.4, "stop": True}})
    second, _ = finished_run.write(folder / "runs/handbook", quality={**finished_run.QUALITY, "tuned": 0.8})
    running(folder, second)
    third, _ = finished_run.write(folder / "runs/tickets", quality={**finished_run.QUALITY, "tuned": 0.9})
    for done in (run, third):
        done.write_json(
            "stages/report.json", {"stage": "report", "summary": {"num_in": 1, "num_out": 1}, "duration_s": 2}
        )
    recipe = Recipe(documents=DocumentSettings(paths=("uploads/abstracts",)))
    (folder / "abstracts.toml").write_text(dump_recipe(recipe))
    (folder / "uploads/abstracts").mkdir(parents=True)
    (folder / "contracts").mkdir()
    (folder / "contracts/terms.md").write_text("Terms.")
    key = key_of("abstracts.toml")
    init = "wrote abstracts.toml for 24 file(s)\n  model.base: no GPU of 12 GiB or more here: the embedded 135M model\n"
    job(folder, "init", key, ["init", "uploads/abstracts", "-o", "abstracts.toml"], init, 0)
    job(folder, "plan", key, ["plan", "abstracts.toml", "--dir", "runs/abstracts"], PLAN, 0)
    turn = {"question": "How many children had anemia?", "passages": {}}
    turn |= {"answers": {"base": "It is common in many countries.", "tuned": "48.1% of the 426 children."}}
    (folder / f".studio/chat-{key_of('runs/abstracts')}.jsonl").write_text(json.dumps(turn) + "\n")


def running(folder: Path, run: RunFolder) -> None:
    """Make a run look as in its training."""
    for name in ("verdict.json", "stages/evaluate.json", "stages/train.json"):
        run.file(name).unlink()
    run.log("start", stage="train")
    log = "[6/8] train\n  train sft 66/198 1.4/s eta 94s loss 1.203  158 tok/s\n"
    job(folder, "run", key_of("runs/handbook"), ["run", "handbook.toml", "--dir", "runs/handbook"], log, None)


def shoot(folder: Path, browser: Any) -> None:
    """Open each page, light and dark, and keep its upper part."""
    run, recipe = f"/run/{key_of('runs/abstracts')}", f"/recipe/{key_of('abstracts.toml')}"
    question = RunFolder(folder / "runs/abstracts").read_records("exam.jsonl", Question)[0].id
    paths = {"runs": "/", "new": "/new", "recipe": recipe, "run": f"/run/{key_of('runs/handbook')}", "jobs": "/jobs"}
    paths |= {name: f"{run}/{name}" for name in ("data", "exam", "verdict", "mark", "chat", "deliver")}
    paths |= {"coverage": f"{run}/data/coverage", "trace": f"{run}/trace/{question}"}
    with studio_of(folder) as server:
        for scheme in ("light", "dark"):
            context = browser.new_context(color_scheme=scheme, viewport=SIZE)
            page = context.new_page()
            page.goto(server.entry)
            for name, path in paths.items():
                page.goto(server.url + path)
                page.wait_for_timeout(300)
                picture = ROOT / f"docs/images/studio-{name}-{scheme}.png"
                page.screenshot(path=picture)
                shrink(picture)
            context.close()


def shrink(picture: Path) -> None:
    """Write a picture with few colors: flat pages need no more."""
    from PIL import Image

    with Image.open(picture) as image:
        image.convert("RGB").quantize(COLORS).save(picture, optimize=True)


if __name__ == "__main__":
    with sync_playwright() as driver:
        home = Path(tempfile.gettempdir()) / "my-models"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        write(home)
        shoot(home, driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]))
