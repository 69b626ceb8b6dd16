"""The verdict page: the results, the answers side by side, the report, and the trace down to the characters."""

from __future__ import annotations

import base64
import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup, escape
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tunewright.html.render import mark_span, page_file
from tunewright.run_folder import RunFile
from tunewright.studio.home import TONES
from tunewright.studio.runs import KnownRun, json_of, regular_file, stamp
from tunewright.studio.sample_index import json_lines, record_of
from tunewright.studio.web import Studio, page, safe

_PAGE = 10
_MOST_WORDS = 600  # of an answer whose differences are marked
_AROUND = 1500  # characters of the source around the evidence
_FILTERS = ("ring", "kind", "won", "first", "second")
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def _rows(studio: Studio, run: KnownRun, name: str) -> list[dict[str, Any]]:
    path = run.path / name
    rows: list[dict[str, Any]] = studio.cache.get((name, run.key), stamp(path), lambda: list(json_lines(path)))
    return rows


def verdict(studio: Studio, request: Request, form: FormData) -> Response:
    """Show the verdict with its arms, and the answers of two of them side by side."""
    run = studio.run(request)
    content = json_of(run, RunFile.VERDICT)
    questions = {str(q["id"]): q for q in _rows(studio, run, RunFile.EXAM) if "id" in q}
    answers: dict[str, dict[str, dict[str, Any]]] = {}
    for answer in _rows(studio, run, RunFile.ANSWERS):
        answers.setdefault(str(answer.get("question")), {})[str(answer.get("arm"))] = answer
    scores = {(str(s.get("question")), str(s.get("arm"))): s.get("primary") for s in _rows(studio, run, RunFile.SCORES)}
    arms = list(dict.fromkeys(arm for own in answers.values() for arm in own))
    chosen = {name: request.query_params.get(name, "")[:80] for name in _FILTERS}
    first = chosen["first"] if chosen["first"] in arms else _default(arms, ("base",))
    second = chosen["second"] if chosen["second"] in arms else _default(arms, ("tuned",))
    cards = [_card(q, answers.get(name, {}), scores, first, second) for name, q in questions.items() if name in answers]
    cards = [card for card in cards if _fits(card, chosen)]
    num_pages = max(1, -(-len(cards) // _PAGE))
    text = request.query_params.get("page", "1")
    number = min(num_pages, max(1, int(text))) if text.isdecimal() and len(text) < 9 else 1
    shown = cards[(number - 1) * _PAGE : number * _PAGE]
    for card in shown:
        card["marked"] = differences(card["texts"][0], card["texts"][1])
    return page(
        "verdict-page.html",
        f"Verdict of {run.name}",
        run=run,
        name=str(content.get("name", "")),
        tone=TONES.get(str(content.get("name", "")), ""),
        why=[str(sentence) for sentence in content.get("why", ())],
        not_measured=[str(text) for text in content.get("not_measured", ())],
        results=_results(content),
        has_report=regular_file(run, RunFile.REPORT) is not None,
        arms=arms,
        first=first,
        second=second,
        rings=sorted({str(q.get("ring", "")) for q in questions.values()}),
        kinds=sorted({_kind(q) for q in questions.values()}),
        chosen=chosen,
        query=urlencode(chosen),
        cards=shown,
        num=len(cards),
        page_no=number,
        num_pages=num_pages,
    )


def _default(arms: Sequence[str], wanted: Sequence[str]) -> str:
    return next((arm for arm in wanted if arm in arms), arms[0] if arms else "")


def _kind(question: Mapping[str, Any]) -> str:
    return str(question.get("kind", "free")) if question.get("answerable", True) else "unanswerable"


def _results(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        return [
            {"arm": str(arm["arm"]), **{name: float(arm["primary"][name]) for name in ("mean", "low", "high")}}
            for arm in content["results"]["arms"]
        ]
    except (KeyError, TypeError, ValueError):
        return []


def _card(
    question: Mapping[str, Any],
    own: Mapping[str, Mapping[str, Any]],
    scores: Mapping[tuple[str, str], Any],
    first: str,
    second: str,
) -> dict[str, Any]:
    name = str(question["id"])
    values = [scores.get((name, arm)) for arm in (first, second)]
    numbers = [value if isinstance(value, int | float) else None for value in values]
    won = "neither"
    if numbers[0] is not None and numbers[1] is not None and numbers[0] != numbers[1]:
        won = first if numbers[0] > numbers[1] else second
    return {
        "id": name,
        "ring": str(question.get("ring", "")),
        "kind": _kind(question),
        "question": str(question.get("question", "")),
        "passage": question.get("passage"),
        "gold": " | ".join(map(str, (question.get("gold", ""), *question.get("further_golds", ())))),
        "texts": [str(own.get(arm, {}).get("text", "")) for arm in (first, second)],
        "scores": numbers,
        "won": won,
    }


def _fits(card: Mapping[str, Any], chosen: Mapping[str, str]) -> bool:
    return all(not chosen[name] or card[name] == chosen[name] for name in ("ring", "kind", "won"))


def differences(first: str, second: str) -> tuple[Markup, Markup]:
    """Return two texts as HTML: words of the first that the second lacks in ``<del>``, new ones in ``<ins>``."""
    parts = [_WORDS.findall(safe(text)) for text in (first, second)]
    if max(map(len, parts)) > 2 * _MOST_WORDS:
        return escape(safe(first)), escape(safe(second))
    left, right = Markup(""), Markup("")
    matcher = difflib.SequenceMatcher(None, parts[0], parts[1], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        old, new = "".join(parts[0][a:b]), "".join(parts[1][c:d])
        left += escape(old) if kind == "equal" else Markup("<del>{}</del>").format(old) if old else ""
        right += escape(new) if kind == "equal" else Markup("<ins>{}</ins>").format(new) if new else ""
    return left, right


def report(studio: Studio, request: Request, form: FormData) -> Response:
    """Return the run's report as a page without scripts: only tunewright's own style sheet has the right digest."""
    run = studio.run(request)
    path = regular_file(run, RunFile.REPORT)
    if path is None:
        raise HTTPException(404, "this run has no report yet")
    style = "\n" + page_file("style.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; sandbox; frame-ancestors 'none'"
    return HTMLResponse(path.read_bytes(), headers={"content-security-policy": policy})


def trace(studio: Studio, request: Request, form: FormData) -> Response:
    """Show where a question or a sample comes from: its passage in the document, and what else rests on it."""
    run, name = studio.run(request), request.path_params["id"]
    question = next((q for q in _rows(studio, run, RunFile.EXAM) if q.get("id") == name), None)
    sample = (
        None if question else _record(studio, run, RunFile.SAMPLES, name) or _record(studio, run, RunFile.TRAIN, name)
    )
    record = question or sample
    if not record:
        raise HTTPException(404, "this run has no question or sample of this identifier")
    spans = [record.get("evidence"), *(record.get("further_evidence") or ())]
    sources = [_source(studio, run, span) for span in spans if isinstance(span, dict)]
    document = str(record.get("document") or "")
    own = [a for a in _rows(studio, run, RunFile.ANSWERS) if a.get("question") == name] if question else []
    related = [
        (str(q["id"]), str(q.get("question", "")))
        for q in _rows(studio, run, RunFile.EXAM)
        if document and q.get("document") == document and q.get("id") != name
    ]
    about = str(_record(studio, run, RunFile.DOCUMENTS, document).get("title", ""))
    turns = [(str(m.get("role")), str(m.get("content"))) for m in record.get("messages", ()) if isinstance(m, dict)]
    return page(
        "trace.html", f"Trace of {name}", run=run, id=name, question=question, turns=turns, sources=sources,
        answers=own, related=related[:20], document=document, about=about,
    )  # fmt: skip


def _record(studio: Studio, run: KnownRun, name: str, identifier: str) -> dict[str, Any]:
    return record_of(studio.cache, run, name, identifier)


def _source(studio: Studio, run: KnownRun, span: Mapping[str, Any]) -> dict[str, Any]:
    """Return the text around a span of a document, with the span marked; the quote alone where there is no document."""
    start, end, quote = int(span.get("start", 0)), int(span.get("end", 0)), str(span.get("quote", ""))
    document = _record(studio, run, RunFile.DOCUMENTS, str(span.get("document", "")))
    text = str(document.get("text", ""))
    if text[start:end] != quote:
        return {
            "marked": mark_span(quote, 0, len(quote)),
            "file": str(document.get("source", "")),
            "start": start,
            "end": end,
            "is_exact": False,
        }
    first, last = max(0, start - _AROUND), min(len(text), end + _AROUND)
    marked = mark_span(text[first:last], start - first, end - first)
    return {"marked": marked, "file": str(document.get("source", "")), "start": start, "end": end, "is_exact": True}
