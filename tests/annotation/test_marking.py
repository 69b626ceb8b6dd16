"""The marking page and its key: blind, balanced, private."""

from __future__ import annotations

import re
import socket
import stat
import threading
from collections import Counter
from pathlib import Path

import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from support import finished_run
from support.marked_run import ARMS, key_of, page_content
from tunewright.annotation import page
from tunewright.annotation.page import page_server
from tunewright.annotation.plan import MarkingKey, MarkingPair, make_key, pairs
from tunewright.commands.mark import write_page
from tunewright.errors import UserError
from tunewright.records import Answer, Question
from tunewright.run_folder import RunFile, RunFolder


def question(number: int, document: str = "d", **more: object) -> Question:
    text = f"Question {number}?"
    fields = {
        "id": f"q{number}",
        "ring": "unseen",
        "document": document,
        "question": text,
        "gold": "g",
        "answerable": True,
    }
    return Question.model_validate(fields | more)


def pair(number: int, first: str, second: str, document: str = "d") -> MarkingPair:
    return MarkingPair(question(number, document), {"base": first, "tuned": second})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    opened, _ = finished_run.write(tmp_path / "run")
    write_page(opened, ARMS)
    return opened


def test_the_file_names_no_arm_document_or_question(run: RunFolder) -> None:
    html = run.file(RunFile.MARKING_PAGE).read_text(encoding="utf-8")
    assert not re.search(r"\b(base|tuned|few-shot|rag|arm|adapter|salt|seed)s?\b", html, re.I)
    key = key_of(run)
    for secret in (key.salt, run.path.name + "/", *(q.id for q in run.read_records("exam.jsonl", Question))):
        assert secret not in html
    assert not re.search(r"""<[^>]*\s(src|href)\s*=|https?:|\burl\(|@import|fetch\(|XMLHttp|WebSocket""", html)
    assert {name for item in page_content(run)["items"] for name in item} == {
        "item", "question", "passage", "gold", "evidence", "sides",
    }  # fmt: skip


def test_only_the_owner_reads_the_key(run: RunFolder) -> None:
    assert stat.S_IMODE(run.file(RunFile.MARKING_KEY).stat().st_mode) == 0o600


def test_names_in_the_page_are_all_different(run: RunFolder) -> None:
    items = page_content(run)["items"]
    names = [item["item"] for item in items] + [side["name"] for item in items for side in item["sides"]]
    assert len(set(names)) == 3 * len(items)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60),
    st.text(max_size=5),
)
def test_sides_are_balanced_wherever_the_marker_stops(rows: list[tuple[int, int, int]], salt: str) -> None:
    result = [pair(n, "x" * a, "y" * b, f"d{d}") for n, (d, a, b) in enumerate(rows)]
    known = {p.question.id: p for p in result}
    key = make_key(result, ARMS, "answers", 1, salt)
    originals = [item for item in key.items if not item.repeat]
    assert {item.question for item in originals} | set(key.same) == set(known)
    tally: Counter[str | None] = Counter()
    for item in originals:
        tally[known[item.question].longer()] += 1 if item.left == "base" else -1
        assert all(abs(value) <= 1 for value in tally.values())
        assert {item.left, item.right} == set(ARMS)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_every_document_has_a_first_question_before_any_has_a_second(documents: list[int]) -> None:
    result = [pair(n, "x", "yy", f"d{d}") for n, d in enumerate(documents)]
    seen: Counter[str] = Counter()
    whole = Counter(f"d{d}" for d in documents)
    for item in make_key(result, ARMS, "a", 1, "s").items:
        if not item.repeat:
            document = result[int(item.question[1:])].question.document
            assert all(seen[other] >= min(seen[document], whole[other]) for other in whole)
            seen[document] += 1
    assert seen == whole


@pytest.mark.parametrize("num", [9, 10, 57, 100])
def test_a_tenth_is_shown_again_later_with_its_sides_swapped(num: int) -> None:
    items = make_key([pair(n, "x", "yy", f"d{n % 7}") for n in range(num)], ARMS, "a", 1, "s").items
    assert sum(item.repeat for item in items) == num // 10
    for at, item in enumerate(items):
        if item.repeat:
            first = next(n for n, other in enumerate(items) if other.question == item.question)
            assert at - first >= 5
            assert (items[first].left, items[first].right) == (item.right, item.left)
            assert items[first].item != item.item


def test_another_salt_gives_other_sides_order_and_names() -> None:
    result = [pair(n, "x", "yy", f"d{n}") for n in range(40)]
    one, again, other = (make_key(result, ARMS, "a", 1, salt) for salt in ("s", "s", "t"))
    assert one == again
    assert [i.question for i in one.items] != [i.question for i in other.items]
    assert not {i.item for i in one.items} & {i.item for i in other.items}


def test_white_space_that_could_reveal_the_arm_is_removed() -> None:
    answers = [
        Answer(
            question="q0",
            arm=arm,
            text=text,
            finish="stop",
            num_prompt_tokens=1,
            num_tokens=1,
            duration_s=1,
            gold_nll=1,
        )
        for arm, text in (("base", " \n yes  \nno \n"), ("tuned", "yes\nno"))
    ]
    result = pairs([question(0)], answers, ARMS)
    assert result[0].texts == {"base": "yes\nno", "tuned": "yes\nno"}
    key = make_key(result, ARMS, "a", 1, "s")
    assert key.same == ("q0",) and not key.items


def test_a_second_call_keeps_key_order_and_sides(run: RunFolder) -> None:
    before = run.file(RunFile.MARKING_KEY).read_bytes(), run.file(RunFile.MARKING_PAGE).read_bytes()
    write_page(run, ("tuned", "base"))
    assert (run.file(RunFile.MARKING_KEY).read_bytes(), run.file(RunFile.MARKING_PAGE).read_bytes()) == before


def test_other_arms_have_a_page_and_a_key_of_their_own(run: RunFolder) -> None:
    before = run.file(RunFile.MARKING_KEY).read_bytes(), run.file(RunFile.MARKING_PAGE).read_bytes()
    write_page(run, ("base", "rag"))
    assert (run.file(RunFile.MARKING_KEY).read_bytes(), run.file(RunFile.MARKING_PAGE).read_bytes()) == before
    key = MarkingKey.model_validate_json(run.file("marking-base-rag.key.json").read_bytes())
    assert set(key.arms) == {"base", "rag"} and run.file("marking-base-rag.html").is_file()
    assert run.file("marking-base-rag.key.json").stat().st_mode & 0o077 == 0


def test_an_arm_without_answers_is_refused(run: RunFolder) -> None:
    for arms in (("base", "nobody"), ("base", "base")):
        with pytest.raises(UserError, match="cannot compare") as failure:
            write_page(run, arms)
        assert "few-shot" in str(failure.value)


def test_served_the_page_alone_is_given_and_only_under_this_machines_names(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_PATIENCE_S", 0.5)
    server = page_server(run.file(RunFile.MARKING_PAGE).read_bytes())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    try:
        http = urllib3.PoolManager(retries=False)
        got = http.request("GET", f"http://127.0.0.1:{port}/")
        assert got.status == 200 and got.data == run.file(RunFile.MARKING_PAGE).read_bytes()
        for path in (RunFile.MARKING_KEY, "answers.jsonl", "../run.json", "marking.html"):
            assert http.request("GET", f"http://127.0.0.1:{port}/{path}").status == 404
        foreign = http.request("GET", f"http://127.0.0.1:{port}/", headers={"Host": f"evil.example:{port}"})
        assert foreign.status == 404 and foreign.data == b""
        with pytest.raises(UserError, match="cannot be used"):
            page_server(b"", port)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
            assert silent.recv(10) == b""  # it is not waited for
    finally:
        server.shutdown()
        server.server_close()
