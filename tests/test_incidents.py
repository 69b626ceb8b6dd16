"""The incident reports: labels that fit the schema and the text, and no report that resembles another."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from support import ROOT
from support.faulty_server import fake_teacher
from support.triage import EXAMPLES, FIELDS, labels, reports, triage
from tunewright.curation.stage import curate
from tunewright.documents.stage import ingest, split
from tunewright.recipe import load_recipe
from tunewright.records import Question, Sample
from tunewright.run_folder import RunFolder
from tunewright.synthesis.extraction import instruction, read_schema, titled_text
from tunewright.synthesis.stage import exam, synth
from tunewright.text.normalization import words


def schema() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((EXAMPLES / "triage.schema.json").read_text(encoding="utf-8"))
    return content


def test_each_report_has_one_label_that_fits_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    gold = labels()
    assert [label["source"] for label in gold] == list(reports())
    assert len(gold) == 100
    for label in gold:
        assert list(label) == ["source", *FIELDS]
        validator.validate({field: label[field] for field in FIELDS})


def test_the_schema_lets_every_field_be_null_and_nothing_else_in() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    nothing = dict.fromkeys(FIELDS)
    validator.validate(nothing)
    for wrong in ({"severity": "SEV4"}, {"component": "mobile"}, {"started_at": 3}, {"owner": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({**nothing, **wrong})


def test_quoted_labels_stand_in_their_report() -> None:
    texts = {name: document.text for name, document in reports().items()}
    for label in labels():
        for field in ("customer_impact", "started_at"):
            assert label[field] is None or (label[field] and label[field] in texts[label["source"]]), label
        # Whoever knows what customers met knows the severity, and the other way round.
        assert (label["customer_impact"] is None) == (label["severity"] in (None, "SEV3")), label


def test_labels_are_spread() -> None:
    gold = labels()
    severities = Counter(label["severity"] for label in gold)
    components = Counter(label["component"] for label in gold)
    assert set(severities) == set(schema()["properties"]["severity"]["enum"])
    assert set(components) == set(schema()["properties"]["component"]["enum"])
    assert min(severities.values()) >= 15 and max(severities.values()) <= 40
    assert components[None] >= 15 and min(components.values()) >= 8
    # Neither gives the other away.
    assert all(len({g["severity"] for g in gold if g["component"] == c}) == 4 for c in components)


def test_no_report_resembles_another() -> None:
    pairs = {}
    for name, document in reports().items():
        tokens = words(document.text)
        assert 60 <= len(tokens) <= 175, name
        pairs[name] = set(zip(tokens, tokens[1:], strict=False))
    nearest = max((len(a & b) / len(a | b), x, y) for (x, a), (y, b) in combinations(pairs.items(), 2))
    assert nearest[0] < 0.35, nearest
    titles = [document.title for document in reports().values()]
    assert len(set(titles)) == len(titles)
    assert not any(re.fullmatch(r"\d+", title) for title in titles)  # a heading, not the file's name


def test_reports_labels_and_schema_are_package_data() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["tunewright"]
    packed = {path for pattern in patterns for path in EXAMPLES.parent.glob(pattern)}
    named = {EXAMPLES / name for name in ("INCIDENTS.md", "incidents.gold.jsonl", "triage.schema.json")}
    assert set((EXAMPLES / "incidents").iterdir()) | named <= packed


def test_the_recipe_names_files_that_are_there() -> None:
    path = ROOT / "recipes" / "incident_triage.toml"
    recipe = load_recipe(path)
    assert recipe.synthesis.tasks == ("extraction",)
    assert recipe.resolve(recipe.synthesis.extraction_schema).samefile(EXAMPLES / "triage.schema.json")
    assert [recipe.resolve(folder).resolve() for folder in recipe.documents.paths] == [EXAMPLES / "incidents"]
    assert "tunewright run recipes/incident_triage.toml" in path.read_text(encoding="utf-8")


def test_the_exam_is_made_of_reports_and_labels() -> None:
    asked = instruction(read_schema(EXAMPLES / "triage.schema.json"))
    lines = (EXAMPLES / "incidents.exam.jsonl").read_text(encoding="utf-8").splitlines()
    for line, label in zip(map(json.loads, lines), labels(), strict=True):
        report = reports()[label.pop("source")]
        assert (line["question"], line["passage"]) == (asked, titled_text(report.title, report.text))
        assert json.loads(line["gold"]) == label


@pytest.mark.slow
def test_the_recipe_writes_what_the_labels_say(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    with fake_teacher(triage) as server:
        recipe = load_recipe(
            ROOT / "recipes" / "incident_triage.toml",
            (f"teacher.url={server.url}", "teacher.api_key_env=", "model.base=embedded"),
        )
        for stage in (ingest, split, exam, synth, curate):
            summary = stage(run, recipe)
    asked, samples = run.read_records("exam.jsonl", Question), run.read_records("train.jsonl", Sample)
    assert Counter(question.ring for question in asked) == {"learned": 70, "unseen": 30}
    assert summary.figures["leaks_removed"] == 0
    gold = {question.document: json.loads(question.gold) for question in asked if question.ring == "learned"}
    wanted = {document for document, label in gold.items() if any(label.values())}
    assert {sample.document for sample in samples} == wanted and len(samples) == len(wanted)
    assert all(json.loads(sample.answer) == gold[sample.document or ""] for sample in samples)
