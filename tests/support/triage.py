"""The bundled incident reports with their labels, and a teacher that knows them."""

from __future__ import annotations

import json
from typing import Any

from support.faulty_server import Answer, Seen, completion
from tunewright.documents.markdown import read_markdown
from tunewright.documents.markup import ReadDocument
from tunewright.examples import abstracts_folder

EXAMPLES = abstracts_folder().parent
FIELDS = ("severity", "component", "customer_impact", "started_at")


def reports() -> dict[str, ReadDocument]:
    documents = {path.name: read_markdown(path)[0] for path in sorted((EXAMPLES / "incidents").iterdir())}
    return {name: document for name, document in documents.items() if isinstance(document, ReadDocument)}


def labels() -> list[dict[str, Any]]:
    lines = (EXAMPLES / "incidents.gold.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def triage(seen: Seen) -> Answer:
    """Answer with the labels, their free text as its own quote, and an invented impact where there is none."""
    prompt = seen.body["messages"][-1]["content"]
    name = next(name for name, report in reports().items() if report.text in prompt)
    values = next(dict(label) for label in labels() if label["source"] == name)
    del values["source"]
    first = reports()[name].text.partition(".")[0]
    quotes = {key: value if key in FIELDS[2:] else first for key, value in values.items() if value}
    invented = {"customer_impact": values["customer_impact"] or "the moon went dark over all ports"}
    quotes.setdefault("customer_impact", "the moon went dark over all ports")
    return Answer(body=completion(json.dumps({"values": values | invented, "quotes": quotes})))
