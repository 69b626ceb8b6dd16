"""From an empty folder to a verdict by clicks alone, with the server killed in each stage: real commands, a tiny model."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.studio_browser import CHROMIUM, StudioProcess, watched
from tunewright.examples import FOLDER
from tunewright.records import Rejection, Sample
from tunewright.run_folder import RunFolder
from tunewright.studio.jobs import Jobs

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,  # tests/studio has a quicker one of each kind: forms, jobs that outlive the server, pages
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]
WAIT_MS = 240_000


class Studio:
    """A person with a browser, and a server that is killed at the worst moments."""

    def __init__(self, folder: Path, browser: Any) -> None:
        self.folder, self._browser = folder, browser
        self.server = StudioProcess(folder)
        self.num_kills = 0
        self.open_browser()

    def open_browser(self) -> None:
        self.context = self._browser.new_context()
        self.context.set_default_timeout(WAIT_MS)
        self.faults = watched(self.context)
        self.page = self.context.new_page()
        self.page.goto(self.server.entry)

    def crash(self, close_browser: bool = False) -> None:
        """Kill the server as it is, and start it again on the same port."""
        self.num_kills += 1
        self.server.kill(signal.SIGKILL)
        if close_browser:
            self.context.close()
        time.sleep(0.3)
        self.server = StudioProcess(self.folder, self.server.port)
        if close_browser:
            self.open_browser()

    def job(self, kind: str) -> Any:
        return next((job for job in Jobs(self.folder).latest(100) if job.kind == kind), None)

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        for _ in range(WAIT_MS // 200):
            if value := holds():
                return value
            time.sleep(0.2)
        raise AssertionError(f"{what}: {[(job.kind, job.state, job.how) for job in Jobs(self.folder).latest()]}")

    def ended(self, kind: str) -> None:
        """Wait until the latest job of a kind has ended well."""
        self.until(lambda: (job := self.job(kind)) and job.state == "ended", f"{kind} ends")
        job = self.job(kind)
        assert job.exit_code == 0, Jobs(self.folder).log_path(job.id).read_text()[-2000:]

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()


@pytest.fixture
def studio(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    for name in ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "" if name.startswith("CUDA") else "1")
    (tmp_path / "folder").mkdir()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        person = Studio(tmp_path / "folder", browser)
        yield person
        person.server.kill(signal.SIGTERM)
        for job in Jobs(person.folder).open_jobs():
            Jobs(person.folder).stop(job.id)
        browser.close()


def chats(path: Path, number: int) -> Path:
    rows = (FOLDER / "triage.train.jsonl").read_text(encoding="utf-8").splitlines()[:number]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_from_an_empty_folder_to_a_verdict(studio: Studio, tmp_path: Path, tiny_model: Path) -> None:
    page = studio.page
    page.get_by_role("link", name="Start with documents or chats").click()
    page.get_by_label("Documents or chats").set_input_files(chats(tmp_path / "reports.jsonl", 90))
    page.locator("#name-upload").fill("reports")
    studio.click("Upload and read")
    page.wait_for_url("**/recipe/*")
    studio.crash()
    studio.ended("init")
    page.reload()
    page.locator("#model-base").fill(str(tiny_model))
    page.locator("#model-quantization").select_option("none")
    for name, value in (
        ("exam-retention_items", "0"),
        ("training-epochs", "1"),
        ("evaluation-max_new_tokens", "8"),
        ("training-max_tokens", "many"),
    ):
        page.locator(f"#{name}").fill(value)
    studio.click("Save the settings")
    assert page.locator("#training-max_tokens + .note + .wrong-text").is_visible()
    page.locator("#training-max_tokens").fill("1024")
    studio.click("Save the settings")
    text = page.locator("#text").input_value()
    page.locator("#text").fill(text + '\n[retrieval]\nmodel = ""\n\n[curation]\nembedding_duplicate = 0\n')
    studio.click("Save the text")
    assert page.get_by_role("button", name="Start the run").is_disabled()
    studio.click("Plan")
    studio.crash(close_browser=True)
    page = studio.page
    studio.ended("plan")
    page.get_by_role("link", name="New run", exact=True).click()
    page.get_by_role("link", name="reports.toml").click()
    assert "train" in (page.locator("#plan ~ .log").first.text_content() or "")
    studio.click("Make the training data, then pause")
    page.wait_for_url("**/run/*")
    studio.crash()
    studio.ended("run")
    edit_and_go_on(studio)
    crash_in_each_stage(studio)
    run = RunFolder(studio.folder / "runs/reports")
    page = studio.page
    page.goto(studio.server.entry)
    page.get_by_role("link", name="runs/reports").click()
    page.get_by_role("link", name="Verdict", exact=True).click()
    name = run.read_json("verdict.json")["name"]
    playwright.expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    page.get_by_role("link", name="The whole report").click()
    assert name in (page.text_content("body") or "")
    assert (
        "rejected by hand" in (page.text_content("body") or "")
        or "rejected by hand" in run.file("data.html").read_text()
    )
    assert studio.faults == [] and studio.num_kills >= 4
    print("kills", studio.num_kills, "verdict", name)


def edit_and_go_on(studio: Studio) -> None:
    """Reject one sample and edit another; the funnel shows both, and what was trained on has them."""
    run, page = RunFolder(studio.folder / "runs/reports"), studio.page
    page.get_by_role("link", name="Data", exact=True).click()
    first, second = run.read_records("train.jsonl", Sample)[:2]
    page.locator(f"#s-{first.id}").get_by_role("button", name="Reject").click()
    card = page.locator(f"#s-{second.id}")
    card.get_by_text("Edit", exact=True).click()
    card.get_by_label("Answer").fill('{"severity": "low"}')
    card.get_by_role("button", name="Save the edit").click()
    playwright.expect(page.get_by_text("2 edits are not in the training set yet")).to_be_visible()
    studio.click("Apply, and stop before the training")
    studio.ended("run")
    page.get_by_role("link", name="Data", exact=True).click()
    playwright.expect(page.get_by_text("1 rejected by hand")).to_be_visible()
    playwright.expect(page.get_by_text("1 edited")).to_be_visible()
    kept = {sample.id: sample for sample in run.read_records("train.jsonl", Sample)}
    assert first.id not in kept and kept[second.id].answer == '{"severity": "low"}'
    assert any(
        r.id == first.id and r.reason == "rejected by hand" for r in run.read_records("rejected.jsonl", Rejection)
    )
    page.get_by_role("link", name="Run", exact=True).click()
    studio.click("Go on")


def crash_in_each_stage(studio: Studio) -> None:
    """Kill the server once in each stage of the run; the job never stops, and the open page shows it again by itself."""
    seen: set[str] = set()
    journal = studio.folder / "runs/reports/journal.jsonl"
    while (job := studio.job("run")) is None or job.state != "ended":
        events = [json.loads(line) for line in journal.read_text().splitlines() if line.strip()]
        started = [entry["stage"] for entry in events if entry.get("event") == "start"]
        if started and started[-1] not in seen:
            seen.add(started[-1])
            if job is not None and job.is_alive and len(seen) > 1:
                studio.crash()
                assert Jobs(studio.folder).get(job.id) is not None
        time.sleep(0.2)
    assert job.exit_code == 0, Jobs(studio.folder).log_path(job.id).read_text()[-2000:]
    playwright.expect(studio.page.locator("#live .state").first).to_have_text("finished")
