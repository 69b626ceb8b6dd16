"""A person with a browser who comes from an empty folder to a verdict by clicks alone, while the server is killed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.studio_browser import CHROMIUM, StudioProcess, watched
from tunewright.records import Rejection, Sample
from tunewright.run_folder import RunFolder
from tunewright.studio.jobs import Jobs


@dataclass(frozen=True)
class Way:
    """What the person uploads and types.

    Attributes:
        name: of the run.
        settings: what is typed into the form, by the identifier of its field.
        lines: what is added to the recipe's text.
        answer: the new answer of the sample that is edited, from the old.
        exam: a file of their own; None where the exam is held out of the chats.
        wait_s: for each command.
    """

    name: str
    chats: Path
    settings: Mapping[str, str]
    answer: Callable[[str], str]
    lines: str = ""
    exam: Path | None = None
    wait_s: int = 240


@dataclass(frozen=True)
class Kill:
    """A kill -9 of the server: what ran then, and whether the browser was closed too."""

    during: str
    browser_closed: bool


@dataclass
class Person:
    """Someone with a browser, and a server that is killed at the worst moments.

    Attributes:
        pictures: a folder for a picture of each page; None makes none.
        kills: of the server so far.
    """

    folder: Path
    browser: Any
    way: Way
    pictures: Path | None = None
    kills: list[Kill] = field(default_factory=list)
    _noted: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = StudioProcess(self.folder)
        self.open_browser()

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / "runs" / self.way.name)

    @property
    def faults(self) -> list[str]:
        """Violations of the content policy, dialogs and errors, in all browsers so far."""
        return [fault for noted in self._noted for fault in noted]

    def open_browser(self) -> None:
        self.context = self.browser.new_context(viewport={"width": 1200, "height": 900})
        self.context.set_default_timeout(1000 * self.way.wait_s)
        self._noted.append(watched(self.context))
        self.page = self.context.new_page()
        self.page.goto(self.server.entry)

    def crash(self, during: str, close_browser: bool = False) -> None:
        """Kill the server as it is, and start it again on the same port."""
        self.kills.append(Kill(during, close_browser))
        self.server.kill(signal.SIGKILL)
        if close_browser:
            self.context.close()
        time.sleep(0.3)
        self.server = StudioProcess(self.folder, self.server.port)
        if close_browser:
            self.open_browser()

    def job(self, kind: str) -> Any:
        return next((job for job in Jobs(self.folder).latest(100) if job.kind == kind), None)

    def ended(self, kind: str) -> None:
        """Wait until the latest job of a kind has ended well."""
        for _ in range(5 * self.way.wait_s):
            if (job := self.job(kind)) and job.state == "ended":
                assert job.exit_code == 0, Jobs(self.folder).log_path(job.id).read_text()[-2000:]
                return
            time.sleep(0.2)
        raise AssertionError(f"{kind} ends: {[(job.kind, job.state, job.how) for job in Jobs(self.folder).latest()]}")

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def follow(self, name: str) -> None:
        self.page.get_by_role("link", name=name, exact=True).click()

    def picture(self, name: str) -> None:
        if self.pictures:
            self.page.screenshot(path=self.pictures / f"{name}.png", full_page=True)

    def shows(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for()


@contextmanager
def person(folder: Path, way: Way, pictures: Path | None = None) -> Iterator[Person]:
    """Start a server of an empty folder and a browser that has opened it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        someone = Person(folder, browser, way, pictures)
        try:
            yield someone
        finally:
            someone.server.kill(signal.SIGTERM)
            for job in Jobs(folder).open_jobs():
                Jobs(folder).stop(job.id)
            browser.close()


def from_an_empty_folder_to_a_verdict(someone: Person) -> str:
    """Click the whole way; return the verdict's name. The server is killed before, within and after the run."""
    make_a_recipe(someone)
    plan_and_make_data(someone)
    edit_samples(someone)
    someone.follow("Run")
    someone.click("Continue")
    crash_in_each_stage(someone)
    return read_the_verdict(someone)


def make_a_recipe(someone: Person) -> None:
    """Upload the files, then fill in the form: first with a wrong value, which is refused at its field."""
    page, way = someone.page, someone.way
    someone.follow("Start with documents or chats")
    page.get_by_label("Documents or chats").set_input_files(way.chats)
    if way.exam:
        page.locator("#own-exam").set_input_files(way.exam)
    page.locator("#name-upload").fill(way.name)
    someone.picture("new")
    someone.click("Upload and read")
    page.wait_for_url("**/recipe/*")
    someone.crash("init")
    someone.ended("init")
    page.reload()
    for name, value in {**way.settings, "training-max_tokens": "many"}.items():
        control = page.locator(f"#{name}")
        is_list = control.evaluate("control => control.tagName") == "SELECT"
        control.select_option(value) if is_list else control.fill(value)
    someone.click("Save the settings")
    page.locator("#training-max_tokens + .note + .wrong-text").wait_for()
    page.locator("#training-max_tokens").fill(way.settings["training-max_tokens"])
    someone.click("Save the settings")
    if way.lines:
        page.locator("#text").fill(page.locator("#text").input_value() + way.lines)
        someone.click("Save the text")


def plan_and_make_data(someone: Person) -> None:
    """Plan, with the server killed and the browser closed meanwhile; then start what ends before the training."""
    assert someone.page.get_by_role("button", name="Start the run").is_disabled()
    someone.click("Plan")
    someone.crash("plan", close_browser=True)
    someone.ended("plan")
    someone.follow("New run")
    someone.follow(f"{someone.way.name}.toml")
    assert "train" in (someone.page.locator("#plan ~ .log").first.text_content() or "")
    someone.picture("recipe")
    someone.click("Make the training data, then pause")
    someone.page.wait_for_url("**/run/*")
    someone.crash("the making of the data")
    someone.ended("run")


def edit_samples(someone: Person) -> None:
    """Reject one sample and edit another; the funnel shows both, and the training set has them."""
    run, page = someone.run, someone.page
    someone.follow("Data")
    first, second = run.read_records("train.jsonl", Sample)[:2]
    answer = someone.way.answer(second.answer)
    assert answer != second.answer, "an edit that changes nothing is refused"
    page.locator(f"#s-{first.id}").get_by_role("button", name="Reject").click()
    page.locator(f"#s-{first.id} .state").first.filter(has_text="rejected").wait_for()
    card = page.locator(f"#s-{second.id}")
    card.get_by_text("Edit", exact=True).click()
    card.get_by_label("Answer").fill(answer)
    card.get_by_role("button", name="Save the edit").click()
    someone.shows("2 edits are not in the training set yet")
    someone.click("Apply, and stop before the training")
    someone.ended("run")
    someone.follow("Data")
    someone.shows("1 rejected by hand")
    someone.shows("1 edited")
    someone.picture("data")
    samples = {sample.id: sample for sample in run.read_records("train.jsonl", Sample)}
    assert first.id not in samples and samples[second.id].answer == answer
    rejected = {r.id: r.reason for r in run.read_records("rejected.jsonl", Rejection)}
    assert rejected[first.id] == "rejected by hand"


def crash_in_each_stage(someone: Person) -> None:
    """Kill the server once in each stage, in the training with the browser closed too.

    The job's process is the same to its end, and the open page shows it again by itself.
    """
    crashed: set[str] = set()
    processes: set[int] = set()
    while (job := someone.job("run")).state != "ended":
        stage = stage_of(someone.run)
        if job.child and job.is_alive and stage not in {"", *crashed}:
            crashed.add(stage)
            processes.add(job.child)
            someone.crash(stage, close_browser=stage == "train")
            if stage == "train":
                someone.follow(f"runs/{someone.way.name}")
                someone.page.locator("#live .state").first.wait_for()
                someone.picture("run")
        time.sleep(0.2)
    assert job.exit_code == 0, Jobs(someone.folder).log_path(job.id).read_text()[-2000:]
    assert len(processes) == 1, "a kill of the server cost the job its process"
    someone.page.locator("#live .state").first.filter(has_text="finished").wait_for()


def stage_of(run: RunFolder) -> str:
    """Return the stage that runs; "" between two."""
    lines = run.file("journal.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines if line.endswith("}")]
    marks = [entry for entry in entries if entry.get("event") in ("start", "finish")]
    return str(marks[-1]["stage"]) if marks and marks[-1]["event"] == "start" else ""


def read_the_verdict(someone: Person) -> str:
    """Open the verdict and the whole report by their links; return the verdict's name."""
    page = someone.page
    page.goto(someone.server.entry)
    someone.picture("runs")
    someone.follow(f"runs/{someone.way.name}")
    someone.follow("Verdict")
    name = str(someone.run.read_json("verdict.json")["name"])
    page.get_by_role("heading", level=1).filter(has_text=name).wait_for()
    someone.picture("verdict")
    someone.follow("The whole report")
    page.get_by_text(name).first.wait_for()
    someone.picture("report")
    return name
