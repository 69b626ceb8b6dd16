"""The marking page in a real browser, by keyboard alone: nothing lost, nothing run, nothing inaccessible."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from support import finished_run
from tunewright.annotation.plan import MarkingKey
from tunewright.commands.mark import read_marks, write_page
from tunewright.records import Answer, Question
from tunewright.run_folder import RunFile, RunFolder

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")

ARMS = ("base", "tuned")
KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "tie": "ArrowDown", "both bad": "x", "cannot tell": "c"}
HOSTILE = "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'><!-- & &lt;b&gt; ]]> \u2028"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of 92 questions with different answers, some of them hostile: with repeats, 101 marks."""
    opened, _ = finished_run.write(tmp_path / "run")
    document = opened.read_records("exam.jsonl", Question)[0].document
    questions = [
        Question(id=f"q{n}", ring="unseen", document=f"{document}{n % 30}", question=f"Number {n}?", gold=f"gold {n}",
                 answerable=True, passage=f"passage {n}" if n % 3 else None)
        for n in range(92)
    ]  # fmt: skip
    answers = [
        Answer(question=q.id, arm=arm, text=f"{HOSTILE} {q.id} {'one' if arm == 'base' else 'other'}",
               finish="stop", num_prompt_tokens=1, num_tokens=1, duration_s=1, gold_nll=1)
        for q in questions for arm in ARMS
    ]  # fmt: skip
    opened.write_records("exam.jsonl", questions)
    opened.write_records("answers.jsonl", answers)
    opened.write_records("scores.jsonl", [])
    write_page(opened, ARMS)
    return opened


def start(page: Any, run: RunFolder, marker: str = "Ann") -> None:
    """Open the page and start; without a marker, the page must remember the name by itself."""
    page.goto(run.file(RunFile.MARKING_PAGE).as_uri())
    page.keyboard.type(marker)
    playwright.expect(page.locator("#marker")).to_have_value("Ann")
    page.keyboard.press("Enter")
    page.wait_for_selector("#task:not([hidden])")


def saved(page: Any, num: int) -> None:
    page.get_by_text(f"saved: {num}", exact=True).wait_for(timeout=20_000)


def wanted(item: Any) -> str:
    """What our marker thinks of a question, whatever the side: known to the test, not to the page."""
    number = int(item.question[1:])
    if number % 10 in (7, 8, 9):
        return ("tie", "both bad", "cannot tell")[number % 10 - 7]
    return "left" if item.left == ("tuned" if number % 3 else "base") else "right"


def download(page: Any, path: Path) -> Path:
    with page.expect_download() as waiting:
        page.keyboard.press("d")
    waiting.value.save_as(path)
    return path


def test_a_hundred_marks_by_keyboard_alone_and_none_lost(browser: Any, run: RunFolder, tmp_path: Path) -> None:
    key = MarkingKey.model_validate_json(run.file(RunFile.MARKING_KEY).read_text())
    assert len(key.items) == 101
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    start(page, run)
    for number, item in enumerate(key.items):
        assert page.text_content("#question") == f"Number {item.question[1:]}?"
        if number % 9 == 4:  # a slip, taken back
            page.keyboard.press("ArrowDown")
            page.keyboard.press("u")
        if number == 50:  # the tab is closed and opened again, as the same marker
            page.close()
            page = context.new_page()
            start(page, run, "")
            assert page.text_content("#progress-text") == "50 of 101 marked"
        page.keyboard.press(KEYS[wanted(item)])
    page.wait_for_selector("#done:not([hidden])")
    saved(page, 101)
    summary = read_marks(run, [download(page, tmp_path / "marks-Ann.json")], ARMS)
    context.close()
    marks = {(m["question"], m.get("repeat", False)): m for m in map(json.loads, run.file("marks.jsonl").open())}
    assert len(marks) == 101 == summary.num_marks
    for item in key.items:
        mark, choice = marks[item.question, item.repeat], wanted(item)
        assert mark["choice"] == (choice if choice not in ("left", "right") else "better")
        assert mark.get("winner") == {"left": item.left, "right": item.right}.get(choice)
    assert summary.self_agreement.share == 1.0
    assert errors == [] and all(url.startswith(("file:", "blob:")) for url in requests)


def test_a_downloaded_file_goes_on_in_another_browser(browser: Any, run: RunFolder, tmp_path: Path) -> None:
    first, second = browser.new_context(accept_downloads=True), browser.new_context()
    page = first.new_page()
    start(page, run)
    for _ in range(3):
        page.keyboard.press("x")
    file = download(page, tmp_path / "marks-Ann.json")
    page = second.new_page()
    page.goto(run.file(RunFile.MARKING_PAGE).as_uri())
    foreign = tmp_path / "foreign.json"
    foreign.write_text(file.read_text().replace('"page": "', '"page": "0'))
    page.set_input_files("#upload", foreign)
    page.get_by_text("This file cannot be used").wait_for()
    assert page.locator("#task").is_hidden()
    page.set_input_files("#upload", file)
    page.wait_for_selector("#task:not([hidden])")
    assert page.text_content("#progress-text") == "3 of 101 marked"
    saved(page, 3)
    first.close()
    second.close()


def test_hostile_answers_are_shown_as_text_and_stay_folded_until_opened(browser: Any, run: RunFolder) -> None:
    page = browser.new_page()
    start(page, run)
    for side in ("#left", "#right"):
        assert page.text_content(side).startswith("</script><script>window.broken=1</script><img src=x")
    assert page.evaluate("window.broken") is None and page.locator("#answers img, #answers script").count() == 0
    gold = page.locator("#gold .text")
    assert not gold.is_visible()
    page.keyboard.press("g")
    assert gold.is_visible() and gold.text_content().startswith("gold ")
    page.keyboard.press("ArrowLeft")
    assert not gold.is_visible()  # folded again with the next question
    page.close()


def test_the_page_lets_nothing_else_run_or_be_fetched(browser: Any, run: RunFolder) -> None:
    page = browser.new_page()
    start(page, run)
    barred = page.evaluate(
        """() => new Promise((done) => {
          const barred = new Set();
          document.addEventListener("securitypolicyviolation", (event) => {
            barred.add(event.effectiveDirective);
            if (barred.size === 3) done([...barred].sort());
          });
          setTimeout(() => done([...barred].sort()), 5000);
          const script = document.createElement("script");
          script.textContent = "window.broken = 1";
          document.body.append(script);
          new Image().src = "http://127.0.0.1:9/x.png";
          fetch("http://127.0.0.1:9/x").catch(() => null);
        })"""
    )
    assert barred == ["connect-src", "img-src", "script-src-elem"] and page.evaluate("window.broken") is None
    page.close()


def test_the_script_state_names_no_arm(browser: Any, run: RunFolder) -> None:
    context = browser.new_context()
    page = context.new_page()
    start(page, run)
    for key in ("ArrowLeft", "ArrowRight", "x"):
        page.keyboard.press(key)
    saved(page, 3)
    state = page.evaluate("JSON.stringify([state, content, {...localStorage}, Object.keys(window)])")
    held = re.sub(r"window\.|<[^>]*>", " ", state + page.content())
    assert not re.search(r"\b(base|tuned|rag|few-shot|adapter|salt)\b", held, re.I)
    key = MarkingKey.model_validate_json(run.file(RunFile.MARKING_KEY).read_text())
    assert key.salt not in held and not re.search(r'"q\d+"', held)
    context.close()


def test_held_keys_typed_names_and_shortcuts_of_the_browser_mark_nothing(browser: Any, run: RunFolder) -> None:
    page = browser.new_page()
    page.goto(run.file(RunFile.MARKING_PAGE).as_uri())
    page.keyboard.type("xcu")  # a name, not marks
    page.keyboard.press("Enter")
    page.wait_for_selector("#task:not([hidden])")
    page.keyboard.press("Control+x")
    page.keyboard.press("Alt+c")
    page.keyboard.down("ArrowLeft")
    for _ in range(5):
        page.keyboard.down("ArrowLeft")  # what a held key sends
    page.keyboard.up("ArrowLeft")
    assert page.text_content("#progress-text") == "1 of 101 marked"
    page.uncheck("#keys")
    page.keyboard.press("x")
    assert page.text_content("#progress-text") == "1 of 101 marked"
    page.close()


def test_buttons_are_reached_by_tab_and_focus_is_seen(browser: Any, run: RunFolder) -> None:
    page = browser.new_page()
    start(page, run)
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.dataset.choice || document.activeElement.id"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        if reached[-1] == "cannot tell":
            break
    assert [name for name in reached if name in KEYS] == ["left", "tie", "right", "both bad", "cannot tell"]
    page.keyboard.press("Space")
    assert page.text_content("#progress-text") == "1 of 101 marked"
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Any, run: RunFolder, scheme: str) -> None:
    pytest.importorskip("axe_playwright_python")
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(run.file(RunFile.MARKING_PAGE).as_uri())

    def violations() -> list[str]:
        page.evaluate(axe)  # the debugger's way in; the page's own policy lets no foreign script run
        report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert report["passes"]
        return [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in report["violations"]]

    assert violations() == []
    page.keyboard.type("Ann")
    page.keyboard.press("Enter")
    page.wait_for_selector("#task:not([hidden])")
    page.keyboard.press("g")
    assert violations() == []
    for number in range(101):
        page.keyboard.press("ArrowLeft")
        assert page.text_content("#progress-text") == f"{number + 1} of 101 marked"
    assert violations() == []
    context.close()


_PATIENCE_MS = 120_000  # of a machine that other programs keep busy


def _kill(profile: Path) -> None:
    """Kill at once every process of the browser that has this profile: nothing is flushed, nothing is said."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and f"--user-data-dir={profile}" in _command_line(entry):
            with suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def _command_line(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().decode(errors="replace")
    except OSError:  # it has ended since
        return ""


@pytest.mark.slow
def test_saved_marks_survive_the_kill_of_the_whole_browser(browser: Any, run: RunFolder, tmp_path: Path) -> None:
    profile, kept = tmp_path / "profile", 0
    for more in (7, 7, 0):
        # Driven through a pipe: on a busy machine a port can be slow to answer.
        context = browser.browser_type.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=["--no-sandbox"], timeout=_PATIENCE_MS
        )
        page = context.new_page()
        start(page, run, "" if kept else "Ann")
        assert page.text_content("#progress-text") == f"{kept} of 101 marked"
        for _ in range(more):
            page.keyboard.press("ArrowLeft")
            kept += 1
            saved(page, kept)
        with context.expect_event("close", timeout=_PATIENCE_MS):
            _kill(profile)
