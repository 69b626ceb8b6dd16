import json
from collections import Counter

import pytest
import verifier_accuracy

from support.faulty_server import Answer, Seen, completion, fake_teacher
from tunewright.curation.grounding import claim_fault
from tunewright.recipe import Recipe, dump_recipe
from tunewright.records import Chunk, Document, Message, Sample, Span
from tunewright.run_folder import RunFolder
from tunewright.settings import TeacherSettings
from tunewright.text.normalization import normalize

FACTS = [f"Field {name} gave {number} kg of grain." for number, name in enumerate("ABCDEFGHIJ", 20)]


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """Ten documents with a sample each; the last has an answer with a number from nowhere."""
    run = RunFolder.create(tmp_path / "run")
    documents, chunks, samples = [], [], []
    for number, fact in enumerate(FACTS):
        name, text = f"d{number}", f"It rained. {fact} Then it was dry."
        answer = "It gave 99 kg of grain." if number == 9 else fact
        turns = (Message(role="user", content="How much grain came of it?"), Message(role="assistant", content=answer))
        span = Span(document=name, start=11, end=11 + len(fact), quote=fact)
        documents.append(Document(id=name, title="Fields", source=name, text=text))
        chunks.append(
            Chunk(id=name, document=name, title="Fields", section=(), start=0, end=len(text), text=text, num_tokens=9)
        )
        samples.append(Sample(id=name, task="free-qa", messages=turns, document=name, chunk=name, evidence=span))
    run.write_records("documents.jsonl", documents)
    run.write_records("chunks.jsonl", chunks)
    run.write_records("samples.jsonl", samples)
    run.write("recipe.toml", dump_recipe(Recipe()))
    return run


def test_the_labeled_claims_are_complete():
    items = verifier_accuracy.read_labeled()
    assert len(items) >= 200 and len({item.id for item in items}) == len(items)
    assert 0.4 <= sum(item.supported for item in items) / len(items) <= 0.6
    assert len({(item.question, item.answer, item.passage) for item in items}) == len(items)
    for item in items:
        assert item.answer.strip() and item.question.endswith("?") and "CC BY 4.0" in item.source
        if item.kind != "other-document":
            assert normalize(item.evidence) in normalize(item.passage), item.id
    kinds = Counter((item.supported, item.kind) for item in items)
    assert {kind for supported, kind in kinds if supported} == {"verbatim", "paraphrased", "partial"}
    assert len(kinds) == 11


def test_the_labeled_claims_have_cases_beyond_the_free_rules():
    missed = Counter(i.kind for i in verifier_accuracy.read_labeled() if not i.supported and not claim_fault(i.claim))
    assert (
        missed["relation-reversed"] and missed["over-generalised"] and missed["addition"] and missed["entity-swapped"]
    )


def test_a_run_is_measured(run, capsys):
    verifier_accuracy.measure_verifiers(run.path, None)
    printed = capsys.readouterr().err
    labeled = verifier_accuracy.read_labeled()
    num_rejected = sum(not i.supported and claim_fault(i.claim) is not None for i in labeled)
    assert f"{num_rejected} of {sum(not i.supported for i in labeled)}" in printed
    num_accepted = sum(i.supported and claim_fault(i.claim) is None for i in labeled)
    assert f"{num_accepted} of {sum(i.supported for i in labeled)}" in printed
    assert (
        "evidence deleted" in printed and "9 of 9" in printed and "27 of 27" in printed
    )  # 9 passing samples, 3 copies each
    assert "1 of 10 answered samples rejected (10.0%)" in printed
    assert "corrected for its errors" in printed and "A wrong relation between true parts passes them" in printed
    assert "--judge RECIPE" in printed


def test_fewer_rejections_than_the_labeled_claims_explain_are_reported(run, capsys):
    kept = [sample for sample in run.read_records("samples.jsonl", Sample) if sample.id != "d9"]
    others = [sample.model_copy(update={"id": f"{sample.id}-{n}"}) for n in range(11) for sample in kept]
    run.write_records("samples.jsonl", [*run.read_records("samples.jsonl", Sample), *others])
    verifier_accuracy.measure_verifiers(run.path, None)
    printed = capsys.readouterr().err
    share = 1 / (len(others) + 10)
    labeled = [i for i in verifier_accuracy.read_labeled() if not i.supported]
    sens = sum(claim_fault(i.claim) is not None for i in labeled) / len(labeled)
    assert "Do not rely on the interval above" in printed
    assert f"if none of its rejections were a false alarm: {1 - share / sens:.1%}" in printed


def test_without_a_run_only_the_labeled_claims_are_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verifier_accuracy.measure_verifiers(None, None)
    printed = capsys.readouterr().err
    assert "specificity" in printed and "your samples" not in printed and not list(tmp_path.iterdir())


def test_a_folder_without_samples_is_an_error(run):
    run.file("samples.jsonl").unlink()
    with pytest.raises(verifier_accuracy.RunFolderError, match="no samples"):
        verifier_accuracy.measure_verifiers(run.path, None)


def recipe_for(url: str, path) -> None:
    path.write_text(dump_recipe(Recipe(teacher=TeacherSettings(url=url, model="m"))))


def oracle(seen: Seen) -> Answer:
    """Judge the labeled claims by their labels, but for one item in ten, and the run's samples as supported."""
    prompt = seen.body["messages"][-1]["content"]
    number, item = next(
        (
            (n, i)
            for n, i in enumerate(ITEMS)
            if f"Question: {i.question}\nAnswer: {i.answer}\n" in prompt and i.passage in prompt
        ),
        (1, None),
    )
    if number % 40 == 3:
        return Answer(body=completion("no JSON"))
    good = item is None or item.supported != (number % 10 == 0)
    finding = {"claim": "c", "verdict": "supported" if good else "contradicted"}
    return Answer(body=completion(json.dumps({"claims": [finding]})))


ITEMS = verifier_accuracy.read_labeled()


def test_a_judge_is_measured_separately(run, tmp_path, capsys):
    with fake_teacher(oracle) as server:
        recipe_for(server.url, tmp_path / "judge.toml")
        verifier_accuracy.measure_verifiers(run.path, tmp_path / "judge.toml")
        calls = len(server.seen)
        printed = capsys.readouterr().err
        verifier_accuracy.measure_verifiers(run.path, tmp_path / "judge.toml")
        assert len(server.seen) == calls == len(ITEMS) + len(FACTS)  # every verdict is journaled
    judged = [(n, i) for n, i in enumerate(ITEMS) if n % 40 != 3]
    right = sum(n % 10 != 0 for n, i in judged if not i.supported)
    assert "judge on the labeled claims" in printed and "free rules on the labeled claims" in printed
    assert f"{right} of {sum(not i.supported for _, i in judged)}" in printed
    assert f"{len(ITEMS) - len(judged)} of {len(ITEMS)}" in printed  # no verdict
    assert "judge: 0 of 10 answered samples rejected" in printed


def test_a_judge_by_chance_corrects_nothing(run, tmp_path, capsys):
    def always(seen: Seen) -> Answer:
        return Answer(body=completion('{"claims": [{"claim": "c", "verdict": "supported"}]}'))

    with fake_teacher(always) as server:
        recipe_for(server.url, tmp_path / "judge.toml")
        verifier_accuracy.measure_verifiers(run.path, tmp_path / "judge.toml")
    assert "corrected faithfulness: undefined" in capsys.readouterr().err


def test_the_script_prints_an_error_with_its_hint(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["verifier_accuracy.py", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as exit_:
        verifier_accuracy.main()
    assert exit_.value.code == 1 and "is not a run folder" in capsys.readouterr().err
