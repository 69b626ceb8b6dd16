"""All pages in a real browser: no script but ours runs, nothing is inaccessible, and a phone's width suffices."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest

from support import data_run, finished_run
from support.studio import addresses
from support.studio_browser import CHROMIUM, StudioProcess, studio_of, watched
from tunewright.commands.mark import write_page
from tunewright.records import Answer, Document, Message, Question, Rejection, Sample
from tunewright.run_folder import RunFolder
from tunewright.studio.jobs import Jobs
from tunewright.studio.runs import key_of

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")

CANARY = "<script>window.broken=1</script><img src=x onerror='window.broken=1'><svg onload=window.broken=1> \"'>{{7*7}}"
KEY, RECIPE = key_of("runs/first"), key_of("first.toml")


def hostile(text: str) -> str:
    return f"{CANARY} {text}"


def write_folder(folder: Path, title: str, change: Any) -> None:
    """Write a studio's folder with a finished run, a recipe, jobs and edits; ``change`` alters every foreign text."""
    run, _ = finished_run.write(folder / "runs/first")
    samples = data_run.write_samples(run, finished_run.documents())
    question = run.read_records("exam.jsonl", Question)[0].id
    run.write_records(
        "documents.jsonl",
        [d.model_copy(update={"title": change(d.title)}) for d in run.read_records("documents.jsonl", Document)],
    )
    run.write_records(
        "exam.jsonl",
        [q.model_copy(update={"question": change(q.question)}) for q in run.read_records("exam.jsonl", Question)],
    )
    run.write_records(
        "answers.jsonl",
        [a.model_copy(update={"text": change(a.text)}) for a in run.read_records("answers.jsonl", Answer)],
    )
    turns = lambda s: tuple(Message(role=m.role, content=change(m.content)) for m in s.messages)  # noqa: E731
    samples = [s.model_copy(update={"messages": turns(s)}) for s in samples]
    run.write_records("samples.jsonl", samples)
    run.write_records("train.jsonl", samples[3:])
    run.write_records(
        "rejected.jsonl",
        [Rejection(stage="curate", id=s.id, reason=change("near duplicate"), task=s.task) for s in samples[:3]],
    )
    run.journal("edits.jsonl").append(
        {
            "id": "e",
            "time": "2026-11-30T10:00:00+0000",
            "who": change("Ann"),
            "action": "reject",
            "sample": samples[4].id,
            "note": change("wrong"),
        }
    )
    run.write("report.html", "<!doctype html><html lang='en'><title>report</title><h1>Report</h1>" + escape(change("")))
    finished_run.reseal(run)
    write_page(run, ("base", "tuned"))
    run.write_json(
        "marking.json",
        {
            "wins": {"base": 3, "tuned": 9, "neither": 2},
            "num_marks": 14,
            "markers": ["a"],
            "e_value": {"value": 3.2, "stop": False},
        },
    )
    (folder / "first.toml").write_text(f'[documents]\npaths = ["docs"]\n\n[training]\nepochs = 3\n# {change("")}\n')
    (folder / "docs").mkdir()
    (folder / "docs" / f"{title}.md").write_text("A text.")
    jobs = Jobs(folder)
    for kind, subject, log, code in (
        ("init", RECIPE, "wrote first.toml for 1 file(s)\n  model.base: no GPU here", 0),
        ("plan", RECIPE, "plan for runs/first\n  train 10 steps\n" + change(""), 0),
        (
            "run",
            KEY,
            f"[1/9] ingest\nwarning: {change('few documents')}\nerror: {change('the disk is full')}\n\n  hint: free some",
            3,
        ),
        ("push", KEY, "model https://hub.example/me/model (private)\n" + change(""), 0),
    ):
        with jobs._change() as connection:
            values = (kind, subject, json.dumps([kind, "runs/first", "me/model"]), 9e9)
            cursor = connection.execute(
                "INSERT INTO jobs (kind, subject, lane, arguments, state, created, started) VALUES (?, ?, 'cpu', ?, 'running', ?, 1)",
                values,
            )
        jobs.log_path(int(cursor.lastrowid or 0)).write_text(log)
        jobs.note_end(int(cursor.lastrowid or 0), code)
    turn = {
        "question": change("What is it?"),
        "answers": {"base": change("One."), "tuned": change("Two.")},
        "passages": {"base": [change("")]},
    }
    (folder / f".studio/chat-{KEY}.jsonl").write_text(json.dumps(turn) + "\n")
    (folder / ".studio/question").write_text(question)


def pages(folder: Path) -> list[str]:
    """Return the address of every page, by the application's own list of routes."""
    question = (folder / ".studio/question").read_text()
    only_post = ("stop", "resume", "compare", "files", "folder", "settings", "text", "start", "discard", "go-on", "edit", "make", "read", "ask", "why", "thumb", "forget", "export", "serve", "push", "send")  # fmt: skip
    known = []
    for path in addresses(KEY):
        last = path.rstrip("/").rpartition("/")[2]
        if (
            last in (*only_post, "state", "events")
            or path.startswith(("/static", f"/run/{KEY}/file"))
            or path.endswith("/exam/1")
        ):
            continue
        path = path.replace(f"/recipe/{KEY}", f"/recipe/{RECIPE}").replace("/trace/" + "0" * 16, f"/trace/{question}")
        known.append(path)
    return known


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    folder = tmp_path_factory.mktemp("studio")
    write_folder(folder, "a <b>&'", hostile)
    with studio_of(folder) as started:
        yield started


@pytest.fixture
def page(browser: Any, server: StudioProcess) -> Iterator[Any]:
    context = browser.new_context()
    faults = watched(context)
    opened = context.new_page()
    opened.goto(server.entry)
    yield opened
    assert faults == []
    context.close()


def test_a_canary_in_documents_answers_names_and_logs_never_runs(page: Any, server: StudioProcess) -> None:
    shown = 0
    for path in pages(server.folder):
        page.goto(server.url + path)
        page.wait_for_timeout(150)  # the stream of the run page has sent its first events by then
        assert page.evaluate("window.broken") is None, path
        assert "49" not in page.content().split("{{7*7}}")[0][-3:], path
        shown += "window.broken=1" in (page.text_content("body") or "")
    assert shown >= 10  # it was there, as text


def test_an_inline_script_would_be_stopped_and_noted(browser: Any, server: StudioProcess) -> None:
    """The listener of the other tests can fail."""
    context = browser.new_context()
    faults = watched(context)
    opened = context.new_page()
    opened.goto(server.entry)
    opened.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.broken=1\">')")
    opened.wait_for_timeout(300)
    assert opened.evaluate("window.broken") is None and any("script-src" in fault for fault in faults)
    context.close()


@pytest.mark.parametrize(
    "scheme, every",
    [
        ("light", False),
        pytest.param("light", True, marks=pytest.mark.slow),
        pytest.param("dark", True, marks=pytest.mark.slow),
    ],
)
def test_axe_has_no_complaint_about_any_page(browser: Any, server: StudioProcess, scheme: str, every: bool) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)  # axe itself is a foreign script
    opened = context.new_page()
    opened.goto(server.entry)
    complaints = []
    for path in pages(server.folder):
        if path.endswith("/report") or not (every or path in ("/", f"/recipe/{RECIPE}", f"/run/{KEY}/data")):
            continue  # the report's own test sees it
        opened.goto(server.url + path)
        opened.evaluate("for (const box of document.querySelectorAll('details')) box.open = true")
        for violation in axe.run(opened).response["violations"]:
            complaints.append((path, violation["id"], violation["nodes"][0]["html"][:160]))
    context.close()
    assert complaints == []


def test_every_page_fits_a_phone_and_focus_is_seen(browser: Any, server: StudioProcess) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, reduced_motion="reduce")
    opened = context.new_page()
    opened.goto(server.entry)
    for path in pages(server.folder):
        if path.endswith(("/report", "/mark/page")):
            continue  # pages of their own, with their own tests
        opened.goto(server.url + path)
        assert opened.evaluate("document.documentElement.scrollWidth") <= 360, path
        opened.keyboard.press("Tab")
        assert opened.evaluate("document.activeElement.className") == "skip", path
        opened.keyboard.press("Tab")
        assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", path
    context.close()


def test_the_data_page_by_keyboard_alone(page: Any, server: StudioProcess) -> None:
    run = RunFolder(server.folder / "runs/first")
    samples = run.read_records("samples.jsonl", Sample)
    page.goto(f"{server.url}/run/{KEY}/data?page=1")
    page.keyboard.press("j")
    page.keyboard.press("r")
    page.wait_for_url(re.compile(rf"#s-{samples[1].id}"))
    page.keyboard.press("e")
    page.keyboard.press("Control+A")
    page.keyboard.type("Typed by hand.")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    playwright.expect(page.locator(f"#s-{samples[1].id} .state").first).to_have_text("edited")
    page.wait_for_load_state()  # the state is shown before the script listens to keys
    page.keyboard.press("u")
    playwright.expect(page.locator(f"#s-{samples[1].id} .state").first).to_have_text("rejected")
    actions = [entry["action"] for entry in run.journal_entries("edits.jsonl")]
    assert actions[-3:] == ["reject", "edit", "undo"]


def test_pages_work_without_any_script(browser: Any, server: StudioProcess) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(server.entry)
    opened.goto(f"{server.url}/run/{KEY}")
    assert opened.locator("svg").count() >= 2 and "free some" in (opened.text_content("body") or "")
    opened.goto(f"{server.url}/recipe/{RECIPE}")
    opened.fill("#training-epochs", "-3")
    opened.click("text=Save the settings")
    assert "greater than or equal to 0" in (opened.text_content("body") or "")
    opened.fill("#training-epochs", "2")
    opened.click("text=Save the settings")
    assert "epochs = 2" in (server.folder / "first.toml").read_text()
    context.close()
