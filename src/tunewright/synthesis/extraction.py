"""Structured extraction: documents to JSON by the user's schema, null where a document does not state a value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
from referencing.exceptions import Unresolvable

from tunewright.errors import RecipeError, regular
from tunewright.models.chat_template import chat
from tunewright.records import Document, Sample, Span
from tunewright.synthesis.context import (
    PACKAGE,
    TaskContext,
    TaskResult,
    reply_fault,
    sample_id,
)
from tunewright.teacher.protocol import Reply
from tunewright.text.injection import PLANTED, injection_fault
from tunewright.text.normalization import find_quote, replace_lone_surrogates, words
from tunewright.text.prompts import fill, load_prompt

_TASK = "extraction"
_NUMBER = re.compile(r"(?<![\w.,])-?\d+(?:,\d{3})*(?:\.\d+)?")
_FIELD_TOKENS = 80  # room for a value and its quote


def read_schema(path: Path) -> dict[str, Any]:
    """Return the extraction's JSON schema: an object with named fields.

    Raises:
        RecipeError: the file is missing, is not JSON or not a valid schema, or its schema is not an object with fields.
    """
    hint = 'a JSON schema: {"type": "object", "properties": {"severity": {"enum": ["high", "low", null]}, ...}}'
    try:
        schema = json.loads(regular(path).read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        fields = schema["properties"]
        if not fields or not all(isinstance(field, dict) for field in fields.values()):
            raise ValueError('"properties" must name at least one field, each with a schema in braces')
        jsonschema.Draft202012Validator(schema).is_valid(dict.fromkeys(fields))  # raises on unresolvable references
    except (OSError, ValueError, TypeError, KeyError, RecursionError, jsonschema.SchemaError, Unresolvable) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RecipeError(f"synthesis.extraction_schema {path} cannot be used", cause, hint) from error
    return dict(schema)


def instruction(schema: Mapping[str, Any]) -> str:
    """Return a prompt's instruction: each field of the schema with its labels and its description."""
    lines = []
    for name, field in schema["properties"].items():
        labels = [str(label) for label in field.get("enum", ()) if label is not None]
        parts = ["one of " + ", ".join(labels) if labels else "as the text has it", field.get("description", "")]
        lines.append(f"- {name}: {'; '.join(filter(None, parts))}")
    return "Extract these fields as one line of JSON, null where the text does not say:\n" + "\n".join(lines)


def titled_text(title: str, text: str) -> str:
    """Return a document as prompts show it: under its title, unless its text starts with the title."""
    return text if text.startswith(title) else f"{title}\n{text}"


def extraction(context: TaskContext, answered: Sequence[Sample]) -> TaskResult:
    """Ask for a JSON object and a quote per field; a field without its quote in the document becomes null.

    Raises:
        RecipeError: the recipe's schema cannot be used.
    """
    del answered
    schema = read_schema(context.recipe.resolve(context.recipe.synthesis.extraction_schema))
    result = TaskResult(_TASK, len(context.documents))
    documents = []
    for document in context.documents:
        planted = injection_fault(f"{document.title}\n{document.text}")
        fault = PLANTED if planted else "" if context.chunks.get(document.id) else "document has no text to show"
        if fault:
            result.reject(document.id, fault, document.source)
        else:
            documents.append(document)
    prompt, fields = load_prompt("extraction", PACKAGE), instruction(schema)
    num_tokens, reply_schema = _FIELD_TOKENS * len(schema["properties"]), _reply_schema(schema)
    requests = [
        context.request(fill(prompt, passage=document.text, fields=fields), num_tokens, reply_schema)
        for document in documents
    ]
    replies = context.teacher.ask_all(requests, "extracting")
    for document, reply in zip(documents, replies, strict=True):
        _add_sample(context, document, schema, reply, result)
    return result


def _reply_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a reply: the values by the user's schema, and a quote for each."""
    quotes = {"type": "object", "properties": {field: {"type": ["string", "null"]} for field in schema["properties"]}}
    return {"type": "object", "properties": {"values": schema, "quotes": quotes}, "required": ["values", "quotes"]}


def _add_sample(
    context: TaskContext, document: Document, schema: dict[str, Any], reply: Reply | None, result: TaskResult
) -> None:
    """Turn a reply into a sample, or reject it with the reason."""
    fault = reply_fault(reply)
    if fault or reply is None:
        result.reject(document.id, fault or "", document.source)
        return
    try:
        content, _ = json.JSONDecoder().raw_decode(reply.text, max(0, reply.text.find("{")))
        values, quotes = (dict(replace_lone_surrogates(content[part])) for part in ("values", "quotes"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        result.reject(document.id, "teacher reply is not the JSON asked for", f"{error}: {reply.text}")
        return
    evidence_match = context.recipe.curation.evidence_match
    spans: list[Span] = []
    kept: dict[str, Any] = {}
    for field, rules in schema["properties"].items():
        value = values.get(field)
        span = None if value is None else _quote_span(document, quotes.get(field), evidence_match)
        if span and "enum" not in rules and not quote_holds(span.quote, value):
            result.reject(document.id, "value is not in its quote", f"{field}: {value!r} <- {span.quote}")
            return
        kept[field] = value if span else None
        spans += [span] if span else []
        result.figures["fields_without_evidence"] += value is not None and not span
    try:
        jsonschema.validate(kept, schema, cls=jsonschema.Draft202012Validator)
    except jsonschema.ValidationError as error:
        result.reject(document.id, "extraction does not follow the schema", f"{error.message}: {kept}")
        return
    if not spans:
        result.reject(document.id, "no field has evidence", reply.text)
        return
    question, answer = instruction(schema), json.dumps(kept, ensure_ascii=False)
    passage = titled_text(document.title, document.text)
    result.samples.append(
        Sample(
            id=sample_id(_TASK, document.id, question, answer),
            task=_TASK,
            messages=chat(context.recipe.system_prompt, question, (passage,), answer),
            document=document.id,
            chunk=context.chunks[document.id][0].id,
            evidence=spans[0],
            further_evidence=tuple(spans[1:]),
        )
    )


def _quote_span(document: Document, quote: object, evidence_match: float) -> Span | None:
    """Return the span of a field's quote in the document, or None."""
    match = find_quote(quote, document.text, evidence_match) if isinstance(quote, str) else None
    if match is None:
        return None
    start, end, _ = match
    return Span(document=document.id, start=start, end=end, quote=document.text[start:end])


def quote_holds(quote: str, value: object) -> bool:
    """Return whether a quote holds a value: text as whole words, a number by its value, a list by each of its items.

    Always true for true and false: no quote spells them out.
    """
    if isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return any(float(number.replace(",", "")) == value for number in _NUMBER.findall(quote))
    if isinstance(value, list):
        return bool(value) and all(quote_holds(quote, item) for item in value)
    text = " ".join(words(str(value)))
    return bool(text) and f" {text} " in f" {' '.join(words(quote))} "
