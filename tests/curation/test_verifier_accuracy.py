import json
from collections import Counter

import pytest

from support.faulty_server import Answer, Seen, completion, fake_teacher
from tunewright.curation import verifier_accuracy
from tunewright.curation.grounding import unsupported
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


def test_the_labelled_set_is_whole():
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


def test_the_labelled_set_has_cases_beyond_the_free_rules():
    missed = Counter(i.kind for i in verifier_accuracy.read_labeled() if not i.supported and not unsupported(i.claim))
    assert (
        missed["relation-reversed"] and missed["over-generalised"] and missed["addition"] and missed["entity-swapped"]
    )


def test_a_run_is_measured(run, capsys):
    verifier_accuracy.verify_the_verifier(run.path, None, run.path)
    told = capsys.readouterr().err
    labelled = verifier_accuracy.read_labeled()
    found = sum(not i.supported and unsupported(i.claim) is not None for i in labelled)
    assert f"{found} of {sum(not i.supported for i in labelled)}" in told
    passed = sum(i.supported and unsupported(i.claim) is None for i in labelled)
    assert f"{passed} of {sum(i.supported for i in labelled)}" in told
    assert "evidence deleted" in told and "9 of 9" in told and "27 of 27" in told  # 9 passing samples, 3 copies each
    assert "1 of 10 answered samples rejected (10.0%)" in told
    assert "corrected for its errors" in told and "A wrong relation between true parts passes them" in told
    assert "--judge RECIPE" in told


def test_fewer_rejections_than_the_labelled_set_explains_are_told(run, capsys):
    kept = [given for given in run.read_records("samples.jsonl", Sample) if given.id != "d9"]
    others = [given.model_copy(update={"id": f"{given.id}-{n}"}) for n in range(11) for given in kept]
    run.write_records("samples.jsonl", [*run.read_records("samples.jsonl", Sample), *others])
    verifier_accuracy.verify_the_verifier(run.path, None, run.path)
    told = capsys.readouterr().err
    share = 1 / (len(others) + 10)
    labelled = [i for i in verifier_accuracy.read_labeled() if not i.supported]
    sens = sum(unsupported(i.claim) is not None for i in labelled) / len(labelled)
    assert "Do not lean on the interval above" in told
    assert f"if none of its rejections were a false alarm: {1 - share / sens:.1%}" in told


def test_without_a_folder_the_labelled_set_alone_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verifier_accuracy.verify_the_verifier(None, None, tmp_path / "none")
    told = capsys.readouterr().err
    assert "specificity" in told and "your samples" not in told and not list(tmp_path.iterdir())


def test_a_folder_without_samples_is_an_error(run):
    run.file("samples.jsonl").unlink()
    with pytest.raises(verifier_accuracy.RunFolderError, match="no samples"):
        verifier_accuracy.verify_the_verifier(run.path, None, run.path)


def recipe_for(url: str, path) -> None:
    path.write_text(dump_recipe(Recipe(teacher=TeacherSettings(url=url, model="m"))))


def oracle(seen: Seen) -> Answer:
    """Judge the labeled set as its labels do, but for one item in ten; call the run's samples supported."""
    asked = seen.body["messages"][-1]["content"]
    number, item = next(
        (
            (n, i)
            for n, i in enumerate(ITEMS)
            if f"Question: {i.question}\nAnswer: {i.answer}\n" in asked and i.passage in asked
        ),
        (1, None),
    )
    if number % 40 == 3:
        return Answer(body=completion("no JSON"))
    good = item is None or item.supported != (number % 10 == 0)
    finding = {"claim": "c", "verdict": "supported" if good else "contradicted"}
    return Answer(body=completion(json.dumps({"claims": [finding]})))


ITEMS = verifier_accuracy.read_labeled()


def test_a_judge_is_measured_apart(run, tmp_path, capsys):
    with fake_teacher(oracle) as server:
        recipe_for(server.url, tmp_path / "judge.toml")
        verifier_accuracy.verify_the_verifier(run.path, tmp_path / "judge.toml", run.path)
        calls = len(server.seen)
        told = capsys.readouterr().err
        verifier_accuracy.verify_the_verifier(run.path, tmp_path / "judge.toml", run.path)
        assert len(server.seen) == calls == len(ITEMS) + len(FACTS)  # every verdict is journalled
    judged = [(n, i) for n, i in enumerate(ITEMS) if n % 40 != 3]
    right = sum(n % 10 != 0 for n, i in judged if not i.supported)
    assert "judge on the labeled set" in told and "free rules on the labeled set" in told
    assert f"{right} of {sum(not i.supported for _, i in judged)}" in told
    assert f"{len(ITEMS) - len(judged)} of {len(ITEMS)}" in told  # no verdict
    assert "judge: 0 of 10 answered samples rejected" in told


def test_a_judge_by_chance_corrects_nothing(run, tmp_path, capsys):
    def always(seen: Seen) -> Answer:
        return Answer(body=completion('{"claims": [{"claim": "c", "verdict": "supported"}]}'))

    with fake_teacher(always) as server:
        recipe_for(server.url, tmp_path / "judge.toml")
        verifier_accuracy.verify_the_verifier(run.path, tmp_path / "judge.toml", run.path)
    assert "corrected faithfulness: undefined" in capsys.readouterr().err
