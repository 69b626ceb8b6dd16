"""Exam, verdict, trace, marks, chat and delivery: what they show, what they start, and text that is hostile."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support import data_run, finished_run
from support.studio import OWN, app_of, get, post, post_files, send
from tunewright.recipe import load_recipe
from tunewright.records import Answer, Question, Sample
from tunewright.run_folder import RunFolder
from tunewright.studio.jobs import Jobs
from tunewright.studio.runs import key_of
from tunewright.studio.verdict_page import differences
from tunewright.text.choices import listed

KEY = key_of("runs/first")
PAGE = f"/run/{KEY}"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[2J"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    run, _ = finished_run.write(folder / "runs/first")
    data_run.write_samples(run, finished_run.documents())
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "studio")
    return tmp_path / "studio"


@pytest.fixture
def run(folder: Path) -> RunFolder:
    return RunFolder(folder / "runs/first")


@pytest.fixture
def app(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Jobs, "move", lambda self: None)
    return app_of(folder)


def started(folder: Path) -> tuple[str, ...]:
    return Jobs(folder).latest()[0].arguments


def test_answers_are_side_by_side_and_filtered_by_who_won(app: Any, run: RunFolder) -> None:
    text = get(app, f"{PAGE}/verdict").text
    assert run.read_json("verdict.json")["name"] in text and text.count('<article class="card"') == 10
    for won, other in (("tuned", "base"), ("base", "tuned")):
        cards = get(app, f"{PAGE}/verdict?won={won}").text.split('<article class="card"')[1:]
        assert cards and all(re.search(rf'class="winner"><strong>{won}<', card) for card in cards)
        assert not any(f'class="winner"><strong>{other}<' in card for card in cards)
    kinds = get(app, f"{PAGE}/verdict?kind=unanswerable&first=rag&second=tuned").text
    assert "· unanswerable ·" in kinds and "<strong>rag</strong>" in kinds
    assert get(app, f"{PAGE}/verdict?first=%3Cb%3E&page=99999999999").status == 200


def test_differences_are_marked_by_word() -> None:
    left, right = differences("The cat sat <b>", "The dog sat <b>")
    assert left == "The <del>cat</del> sat &lt;b&gt;" and right == "The <ins>dog</ins> sat &lt;b&gt;"
    began = time.process_time()
    assert "<del>" not in differences("a b " * 20_000, "c d " * 20_000)[0]
    assert time.process_time() - began < 1


def test_a_trace_ends_at_the_characters_of_the_source(app: Any, run: RunFolder) -> None:
    question = next(q for q in run.read_records("exam.jsonl", Question) if q.evidence)
    assert question.evidence
    text = get(app, f"{PAGE}/trace/{question.id}").text
    assert f"{question.evidence.start:,}–{question.evidence.end:,}" in text
    marked = re.search(r"<mark>(.*?)</mark>", text, re.S)
    assert (
        marked
        and marked[1]
        .replace("&#39;", "'")
        .replace("&#34;", '"')
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
        == question.evidence.quote
    )
    sample = run.read_records("samples.jsonl", Sample)[0]
    assert "<mark>" in get(app, f"{PAGE}/trace/{sample.id}").text
    for name in ("..", "nothing", "%00"):
        assert get(app, f"{PAGE}/trace/{name}").status == 404


def test_the_report_and_the_marking_page_run_no_script_but_ours(app: Any, run: RunFolder) -> None:
    run.write("report.html", f"<style>\nx</style>{HOSTILE}")
    reply = get(app, f"{PAGE}/report")
    policy = reply.headers["content-security-policy"]
    assert (
        "default-src 'none'" in policy and "sandbox" in policy and "unsafe" not in policy and "script-src" not in policy
    )
    run.write("marking.html", HOSTILE)
    policy = get(app, f"{PAGE}/mark/page").headers["content-security-policy"]
    assert (
        re.search(r"script-src 'sha256-[\w+/=]+';", policy) and "unsafe" not in policy and "connect-src" not in policy
    )


def test_the_exam_is_edited_before_training_data_exists_and_sealed_by_the_next_run(
    app: Any, run: RunFolder, folder: Path
) -> None:
    for name in ("samples.jsonl", "answers.jsonl", "train.jsonl"):
        run.file(name).unlink(missing_ok=True)
    (folder / "first.toml").write_text('[documents]\npaths = ["docs"]\n')
    (folder / "docs").mkdir()
    questions = run.read_records("exam.jsonl", Question)
    assert "can still be edited" in get(app, f"{PAGE}/exam").text
    first = {"old": questions[0].question, "action": "save", "question": "Which one is it?", "answer": "This one."}
    assert post(app, f"{PAGE}/exam/0", first).status == 303
    assert post(app, f"{PAGE}/exam/1", {"old": questions[1].question, "action": "drop"}).status == 303
    assert (
        post(app, f"{PAGE}/exam/1", {"old": questions[1].question, "action": "drop"}).status == 409
    )  # no longer there
    assert (
        post(app, f"{PAGE}/exam/0", {"old": "Which one is it?", "action": "save", "question": "", "answer": "x"}).status
        == 400
    )
    text = get(app, f"{PAGE}/exam").text
    assert "Edited, not sealed yet" in text and "Which one is it?" in text
    recipe = load_recipe(folder / "first.toml")
    assert recipe.exam.file == "first.exam.jsonl"
    from tunewright.records import Document
    from tunewright.synthesis.own_exam import read_own_exam

    documents = {d.id: d for d in run.read_records("documents.jsonl", Document)}
    own, rejected = read_own_exam(folder / "first.exam.jsonl", recipe.refusal, documents, {})
    assert rejected == [] and [q.question for q in own] == ["Which one is it?", *[q.question for q in questions[2:]]]
    assert own[0].gold == "This one." and own[1].ring == questions[2].ring and own[1].evidence == questions[2].evidence
    assert post(app, f"{PAGE}/go-on", {"until": "exam"}).status == 303
    assert started(folder)[-2:] == ("--until", "exam")


def test_a_choice_is_reworded_and_keeps_its_answer_behind_the_letter(app: Any, run: RunFolder, folder: Path) -> None:
    for name in ("samples.jsonl", "answers.jsonl", "train.jsonl"):
        run.file(name).unlink(missing_ok=True)
    (folder / "first.toml").write_text('[documents]\npaths = ["docs"]\n')
    (folder / "docs").mkdir()
    options = ("Orrin", "Breda")
    choice = {"question": listed("Which ship?", options), "options": options, "gold": "B. Breda", "kind": "choice"}
    first, *others = run.read_records("exam.jsonl", Question)
    run.write_records("exam.jsonl", [first.model_copy(update=choice), *others])
    saved = {"old": "Which ship?", "action": "save", "question": "Which ship is it?", "answer": "B. Breda"}
    assert post(app, f"{PAGE}/exam/0", {**saved, "answer": "Umber"}).status == 400
    assert post(app, f"{PAGE}/exam/0", saved).status == 303
    assert json.loads((folder / "first.exam.jsonl").read_text().splitlines()[0])["question"] == "Which ship is it?"


def test_a_sealed_exam_is_read_only(app: Any, run: RunFolder, folder: Path) -> None:
    (folder / "first.toml").write_text('[documents]\npaths = ["docs"]\n')
    question = run.read_records("exam.jsonl", Question)[0]
    text = get(app, f"{PAGE}/exam").text
    assert "Sealed" in text and run.read_json("seal.json")["exam"] in text and 'value="drop"' not in text
    reply = post(app, f"{PAGE}/exam/0", {"old": question.question, "action": "drop"})
    assert reply.status == 400 and "can no longer be edited" in reply.text
    assert not (folder / "first.exam.jsonl").exists()


def test_marks_of_several_markers_are_read_together(app: Any, run: RunFolder, folder: Path) -> None:
    assert post(app, f"{PAGE}/mark/make", {"first": "base", "second": "base"}).status == 400
    assert post(app, f"{PAGE}/mark/make", {"first": "base", "second": "--read"}).status == 400
    assert post_files(app, f"{PAGE}/mark/read", [("a.json", b"{}")]).status == 400  # no page yet
    assert post(app, f"{PAGE}/mark/make", {"first": "rag", "second": "tuned"}).status == 303
    assert started(folder)[-3:] == ("--arms", "rag", "tuned")
    run.write("marking.html", "page")
    run.write_json("marking.key.json", {"arms": ["rag", "tuned"], "items": [{"left": "rag"}]})
    files = [("marks-Ann.json", b"{}"), ("../../marks-Ben.json", b"{}")]
    assert post_files(app, f"{PAGE}/mark/read", files).status == 303
    words = started(folder)
    assert [Path(word).name for word in words[words.index("--read") + 1 :]] == ["marks-Ann.json", "marks-Ben.json"]
    assert all(Path(word).parent == folder / f"uploads/marks-{KEY}" for word in words[words.index("--read") + 1 :])
    assert post_files(app, f"{PAGE}/mark/read", [("x.html", b"x")]).status == 400
    assert "left" not in get(app, f"{PAGE}/mark").text.split("<main")[1]  # nothing of the key but the two names


def test_exports_servers_and_pushes_are_started_with_checked_words(app: Any, run: RunFolder, folder: Path) -> None:
    run.file("adapter").mkdir()
    for fields in ({"target": "pickle"}, {"target": "gguf", "dtype": "--help"}, {"target": "adapter", "dtype": "f16"}):
        assert post(app, f"{PAGE}/deliver/export", fields).status == 400
    assert post(app, f"{PAGE}/deliver/export", {"target": "gguf", "dtype": "q8_0"}).status == 303
    assert started(folder)[-4:] == ("--to", "gguf", "--dtype", "q8_0")
    for fields in (
        {"engine": "sh", "port": "0"},
        {"engine": "auto", "port": "99999"},
        {"engine": "auto", "port": "0; ls"},
    ):
        assert post(app, f"{PAGE}/deliver/serve", fields).status == 400
    assert post(app, f"{PAGE}/deliver/serve", {"engine": "auto", "port": "0"}).status == 303
    assert "--host" not in started(folder)  # this machine alone
    assert "--yes" not in started(folder)


def test_a_server_is_followed_until_it_listens_and_keeps_no_run_waiting(app: Any, run: RunFolder, folder: Path) -> None:
    run.file("adapter").mkdir()
    assert post(app, f"{PAGE}/deliver/serve", {"engine": "auto", "port": "0"}).status == 303
    job = Jobs(folder).latest()[0]
    assert Jobs(folder).claim("server") is not None
    assert "this page follows it" in get(app, f"{PAGE}/deliver").text
    assert json.loads(get(app, f"/jobs/{job.id}/state").text)["listens"] is False
    Jobs(folder).log_path(job.id).write_text("open to this machine only\nhttp://127.0.0.1:40123/v1\n")
    assert json.loads(get(app, f"/jobs/{job.id}/state").text)["listens"] is True
    text = get(app, f"{PAGE}/deliver").text
    assert "Address: <code>http://127.0.0.1:40123/v1" in text and "this page follows it" not in text
    assert "Stop the serve" in text
    assert post(app, f"{PAGE}/go-on").status == 303  # a server only reads the run


def test_nothing_is_published_that_was_not_shown_and_typed_again(app: Any, run: RunFolder, folder: Path) -> None:
    jobs = Jobs(folder)
    for repo in ("me", "--yes", "me/..", "me/a b", "me/a--b", "https://evil/x"):
        assert post(app, f"{PAGE}/deliver/push", {"repo": repo}).status == 400, repo
    send_fields = {"repo": "me/model", "sure": "yes"}
    assert post(app, f"{PAGE}/deliver/send", send_fields).status == 400
    assert post(app, f"{PAGE}/deliver/push", {"repo": "me/model", "public": "yes", "yes": "yes"}).status == 303
    shown = jobs.latest()[0]
    assert "--yes" not in shown.arguments and "--public" in shown.arguments
    assert post(app, f"{PAGE}/deliver/send", send_fields).status == 400  # not shown yet
    jobs.note_end(shown.id, 0)
    for fields in ({"repo": "me/other", "sure": "yes"}, {"repo": "me/model"}, {}):
        assert post(app, f"{PAGE}/deliver/send", fields).status == 400
    assert post(app, f"{PAGE}/deliver/send", send_fields).status == 303
    assert jobs.latest()[0].arguments == (*shown.arguments, "--yes")
    jobs.note_end(jobs.latest()[0].id, 0)
    assert post(app, f"{PAGE}/deliver/send", send_fields).status == 400  # once


@pytest.fixture
def stand_in_talk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process in place of the models: it answers each arm with what it got, and dies when it is told so."""
    program = tmp_path / "talk.py"
    program.write_text(
        "import json, sys, os\n"
        "for line in sys.stdin:\n"
        "    order = json.loads(line)\n"
        "    if order.get('question') == 'die': os._exit(9)\n"
        "    if 'why' in order: print(json.dumps({'why': ['sample 1 ' + order['why']]}), flush=True)\n"
        "    for arm in order.get('arms', ()):\n"
        "        print(json.dumps({'arm': arm, 'num_prompt_tokens': 3, 'passages': ['p'] if arm == 'rag' else []}), flush=True)\n"
        "        for piece in (arm, ' after ', str(len(order['turns'])), ' ', order['question']):\n"
        "            print(json.dumps({'arm': arm, 'piece': piece}), flush=True)\n"
        "    print(json.dumps({'done': True}), flush=True)\n"
    )
    real = __import__("subprocess").Popen
    monkeypatch.setattr(
        "tunewright.studio.chat_page.subprocess.Popen",
        lambda words, **options: real([sys.executable, str(program)], **options),
    )
    monkeypatch.setattr("tunewright.studio.chat_page._open", {})


@pytest.mark.usefixtures("stand_in_talk")
def test_a_chat_streams_and_its_turns_outlive_the_server(app: Any, folder: Path) -> None:
    headers = {**OWN, "content-type": "application/x-www-form-urlencoded", "accept": "text/event-stream"}
    reply = send(app, "POST", f"{PAGE}/chat/ask", headers, b"question=hello&arm=base&arm=tuned")
    messages = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
    assert "".join(m["piece"] for m in messages if m.get("arm") == "tuned" and "piece" in m) == "tuned after 0 hello"
    assert post(app, f"{PAGE}/chat/ask", {"question": HOSTILE, "arm": ["rag"]}).status == 303  # without a script
    text = get(app_of(folder), f"{PAGE}/chat").text
    shown = re.sub(r'data-text="[^"]*"', "", text)
    assert "base after 0 hello" in text and "rag after 1 " in text
    assert "<script>alert" not in text and "<img src" not in text and "\u202e" not in shown
    assert "why hello" not in text
    assert json.loads(post(app, f"{PAGE}/chat/why", {"text": "hello"}).text) == {"lines": ["sample 1 hello"]}
    assert post(app, f"{PAGE}/chat/ask", {"question": "", "arm": "base"}).status == 400
    assert post(app, f"{PAGE}/chat/ask", {"question": "x", "arm": "sh"}).status == 400
    reply = post(app, f"{PAGE}/chat/ask", {"question": "die", "arm": "base"})
    assert reply.status == 400 and "the chat ended" in reply.text
    assert post(app, f"{PAGE}/chat/forget").status == 303
    assert post(app, f"{PAGE}/chat/ask", {"question": "again", "arm": "base"}).status == 303
    assert "base after 0 again" in get(app, f"{PAGE}/chat").text and "hello" not in get(app, f"{PAGE}/chat").text


@pytest.mark.usefixtures("stand_in_talk")
def test_thumbs_become_samples_and_pairs_that_a_recipe_reads(app: Any, folder: Path) -> None:
    from tunewright.curation.chat_formats import read_own_data
    from tunewright.curation.preference_pairs import read_own_pairs

    post(app, f"{PAGE}/chat/ask", {"question": "What is it?", "arm": ["base", "tuned"]})
    for _ in range(2):  # pressed twice, kept once
        assert post(app, f"{PAGE}/chat/thumb", {"turn": "0", "arm": "tuned", "kind": "better"}).status == 303
        assert post(app, f"{PAGE}/chat/thumb", {"turn": "0", "arm": "base", "kind": "good"}).status == 303
    for fields in ({"turn": "9", "arm": "base"}, {"turn": "x"}, {"turn": "0", "arm": "rag"}):
        assert post(app, f"{PAGE}/chat/thumb", fields).status == 400
    samples, malformed = read_own_data([folder / "first.liked.jsonl"])
    assert malformed == [] and [s.answer for s in samples] == ["base after 0 What is it?"]
    (folder / "r.toml").write_text('[preference]\ndata = ["first.preferred.jsonl"]\n')
    pairs = [pair for _, pair in read_own_pairs(load_recipe(folder / "r.toml"))]
    assert [(p.chosen, p.rejected) for p in pairs] == [("tuned after 0 What is it?", "base after 0 What is it?")]  # type: ignore[union-attr]


def test_hostile_answers_and_names_are_text_on_every_page_of_a_run(app: Any, run: RunFolder) -> None:
    questions = [
        q.model_copy(update={"question": HOSTILE, "gold": HOSTILE, "passage": HOSTILE})
        for q in run.read_records("exam.jsonl", Question)[:3]
    ]
    names = {q.id for q in questions}
    answers = [
        a.model_copy(update={"text": HOSTILE}) for a in run.read_records("answers.jsonl", Answer) if a.question in names
    ]
    run.write_records("exam.jsonl", questions)
    run.write_records("answers.jsonl", answers)
    run.write_json(
        "verdict.json", {"name": HOSTILE, "why": [HOSTILE], "not_measured": [HOSTILE], "results": {"arms": "x"}}
    )
    run.write_json("seal.json", {HOSTILE: HOSTILE})
    export = run.file("exports") / "<script>alert(1)<∕script>"
    export.mkdir(parents=True)
    (export / "certificate.md").write_text(f"- evaluated: {HOSTILE}\n")
    pages = ["", "/exam", "/verdict", f"/trace/{questions[0].id}", "/mark", "/chat", "/deliver", "/data"]
    for path in pages:
        text = get(app, f"{PAGE}{path}").text
        assert "<script>alert" not in text and "<img src" not in text and "\x1b" not in text, path
        assert "\u202e" not in re.sub(r"<textarea.*?</textarea>|<input[^>]*>", "", text, flags=re.S), path


def test_damaged_files_give_a_page_and_no_traceback(app: Any, run: RunFolder) -> None:
    for name in (
        "verdict.json",
        "seal.json",
        "marking.json",
        "preview.json",
        "answers.jsonl",
        "scores.jsonl",
        "rejected.jsonl",
    ):
        run.file(name).write_text('[1, {"a":\n\x00')
    for path in ("", "/verdict", "/mark", "/chat", "/deliver", "/data"):
        assert get(app, f"{PAGE}{path}").status == 200, path
    run.file("exam.jsonl").write_text("{}\n")
    reply = get(app, f"{PAGE}/exam")
    assert reply.status == 400 and "line 1 is not a Question" in reply.text and "Traceback" not in reply.text
