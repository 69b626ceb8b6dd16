"""Structured extraction: a document to JSON after the user's schema, null where the document does not say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
from referencing.exceptions import Unresolvable

from tunewright.errors import RecipeError
from tunewright.models.chat_template import chat
from tunewright.records import Document, Sample, Span
from tunewright.synthesis.context import Work, Written, reply_fault, sample_id, whole_characters
from tunewright.teacher.protocol import Reply
from tunewright.text.injection import PLANTED, injection_fault
from tunewright.text.normalization import find_quote, words
from tunewright.text.prompts import fill, load_prompt

TASK = "extraction"
_NUMBER = re.compile(r"(?<![\w.,])-?\d+(?:,\d{3})*(?:\.\d+)?")
_FIELD_TOKENS = 80  # room for a value and its quote


def read_schema(path: Path) -> dict[str, Any]:
    """Return the JSON schema of what is extracted: an object of named fields.

    Raises:
        RecipeError: the file is missing, no JSON, no valid schema, or not of an object with fields.
    """
    hint = 'a JSON schema: {"type": "object", "properties": {"severity": {"enum": ["high", "low", null]}, ...}}'
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        fields = schema["properties"]
        if not fields or not all(isinstance(field, dict) for field in fields.values()):
            raise ValueError('"properties" must name at least one field, each with a schema in braces')
        jsonschema.Draft202012Validator(schema).is_valid(dict.fromkeys(fields))  # finds references to nowhere
    except (OSError, ValueError, TypeError, KeyError, RecursionError, jsonschema.SchemaError, Unresolvable) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RecipeError(f"synthesis.extraction_schema {path} cannot be used", cause, hint) from error
    return dict(schema)


def instruction(schema: Mapping[str, Any]) -> str:
    """Return what a prompt asks for: every field with its labels and its description."""
    lines = []
    for name, field in schema["properties"].items():
        labels = [str(label) for label in field.get("enum", ()) if label is not None]
        parts = ["one of " + ", ".join(labels) if labels else "as the text has it", field.get("description", "")]
        lines.append(f"- {name}: {'; '.join(filter(None, parts))}")
    return "Extract these fields as one line of JSON, null where the text does not say:\n" + "\n".join(lines)


def shown_text(title: str, text: str) -> str:
    """Return a whole document as a prompt shows it: under its title, where its text does not begin with that."""
    return text if text.startswith(title) else f"{title}\n{text}"


def extraction(work: Work, answered: Sequence[Sample]) -> Written:
    """Ask for a JSON object and a quote per field; a field without its quote in the document becomes null.

    Raises:
        RecipeError: the recipe names no usable schema.
    """
    del answered
    schema = read_schema(work.recipe.resolve(work.recipe.synthesis.extraction_schema))
    written = Written(TASK, len(work.documents))
    documents = []
    for document in work.documents:
        planted = injection_fault(f"{document.title}\n{document.text}")
        fault = PLANTED if planted else "" if work.chunks.get(document.id) else "document has no text to show"
        if fault:
            written.reject(document.id, fault, document.source)
        else:
            documents.append(document)
    asked, prompt = instruction(schema), load_prompt("extraction")
    fields = list(schema["properties"])
    quotes = {"type": "object", "properties": {field: {"type": ["string", "null"]} for field in fields}}
    wanted = {"type": "object", "properties": {"values": schema, "quotes": quotes}, "required": ["values", "quotes"]}
    requests = [
        work.request(fill(prompt, passage=document.text, fields=asked), _FIELD_TOKENS * len(fields), wanted)
        for document in documents
    ]
    replies = work.teacher.ask_all(requests, "extracting")
    for document, reply in zip(documents, replies, strict=True):
        _add(work, document, schema, asked, reply, written)
    return written


def _add(
    work: Work, document: Document, schema: dict[str, Any], asked: str, reply: Reply | None, written: Written
) -> None:
    """Turn a reply into a sample, or reject it with the reason."""
    fault = reply_fault(reply)
    if fault or reply is None:
        written.reject(document.id, fault or "", document.source)
        return
    try:
        content, _ = json.JSONDecoder().raw_decode(reply.text, max(0, reply.text.find("{")))
        values, quotes = (dict(whole_characters(content[part])) for part in ("values", "quotes"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        written.reject(document.id, "teacher reply is not the JSON asked for", f"{error}: {reply.text}")
        return
    spans: list[Span] = []
    kept: dict[str, Any] = {}
    for field, rules in schema["properties"].items():
        value = values.get(field)
        span = None if value is None else _quoted(document, quotes.get(field), work)
        if span and "enum" not in rules and not says(span.quote, value):
            written.reject(document.id, "value is not in its quote", f"{field}: {value!r} <- {span.quote}")
            return
        kept[field] = value if span else None
        spans += [span] if span else []
        written.figures["fields_without_evidence"] += value is not None and not span
    try:
        jsonschema.validate(kept, schema, cls=jsonschema.Draft202012Validator)
    except jsonschema.ValidationError as error:
        written.reject(document.id, "extraction does not follow the schema", f"{error.message}: {kept}")
        return
    if not spans:
        written.reject(document.id, "no field has evidence", reply.text)
        return
    chunk = work.chunks[document.id][0]
    shown = shown_text(document.title, document.text)
    answer = json.dumps(kept, ensure_ascii=False)
    written.samples.append(
        Sample(
            id=sample_id(TASK, document.id, asked, answer),
            task=TASK,
            messages=chat(work.recipe.system_prompt, asked, (shown,), answer),
            document=document.id,
            chunk=chunk.id,
            evidence=spans[0],
            further_evidence=tuple(spans[1:]),
        )
    )


def _quoted(document: Document, quote: object, work: Work) -> Span | None:
    """Return where a field's quote stands in the document, or None."""
    place = find_quote(quote, document.text, work.recipe.curation.evidence_match) if isinstance(quote, str) else None
    if place is None:
        return None
    start, end, _ = place
    return Span(document=document.id, start=start, end=end, quote=document.text[start:end])


def says(quote: str, value: object) -> bool:
    """Tell whether a quote holds a value: whole words, a number by its value, a list by each of its members.

    True and false are labels, which no quote spells out.
    """
    if isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return any(float(number.replace(",", "")) == value for number in _NUMBER.findall(quote))
    if isinstance(value, list):
        return bool(value) and all(says(quote, one) for one in value)
    told = " ".join(words(str(value)))
    return bool(told) and f" {told} " in f" {' '.join(words(quote))} "
