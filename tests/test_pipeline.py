"""The whole path on a tiny model: what runs, what is fresh, what an edit makes stale."""

import json
import tomllib

import pytest

from support.faulty_server import Answer, completion, fake_teacher
from support.whole_path import asks, write_recipe
from tunewright import pipeline
from tunewright.errors import StageError, UserError
from tunewright.recipe import parse_recipe
from tunewright.records import Question, Sample
from tunewright.run_folder import RunFolder
from tunewright.storage import file_digest

UNASKED = ("hold-out", "pairs", "placebo", "seeds", "judge", "verdict")
FINISHED = [name for name in pipeline.STAGE_NAMES if name not in UNASKED]


def load(path):
    return parse_recipe(tomllib.loads(path.read_text()), path.parent)


def started(run):
    return [entry["stage"] for entry in run.journal().entries if entry["event"] == "start"]


def verdict(run):
    """The verdict without how long the answers took."""
    content = run.read_json("verdict.json")
    for arm in content["results"]["arms"]:
        del arm["duration_s"]
    return content


def calls(run):
    return [entry["key"] for entry in run.journal("teacher.jsonl").entries]


@pytest.fixture
def teacher():
    with fake_teacher(asks) as server:
        yield server


@pytest.fixture
def recipe_file(tmp_path, tiny_model, teacher, abstracts):
    return write_recipe(tmp_path, tiny_model, teacher.url, abstracts)


def test_whole_path_then_nothing_then_only_what_an_edit_reaches(tmp_path, recipe_file, teacher, abstracts):
    run = pipeline.run(load(recipe_file), tmp_path / "run")
    assert started(run) == FINISHED
    for name in ("report.html", "comparison.csv", "verdict.json", "adapter/adapter_model.safetensors", "seal.json"):
        assert run.file(name).stat().st_size > 0
    exam = run.read_records("exam.jsonl", Question)
    assert {question.ring for question in exam} == {"learned", "unseen"}
    assert len(run.read_records("train.jsonl", Sample)) >= 15
    asked, digest = calls(run), file_digest(run.file("adapter"))
    assert len(teacher.seen) == len(asked) == len(set(asked))

    pipeline.run(load(recipe_file), tmp_path / "run")
    assert started(run) == FINISHED
    assert len(teacher.seen) == len(asked)

    touched = sorted(abstracts.iterdir())[0]
    touched.write_bytes(touched.read_bytes())
    pipeline.run(load(recipe_file), tmp_path / "run")
    assert started(run) == FINISHED

    before = {entry["key"] for entry in run.journal("teacher.jsonl").entries}
    split = [json.loads(line) for line in run.file("split.jsonl").read_text().splitlines()]
    sides = {entry["group"]: entry["side"] for entry in split}
    edited = next(path for path in sorted(abstracts.iterdir()) if sides[path.name] == "train")
    text = edited.read_text(encoding="utf-8")
    edited.write_text(
        text.replace("participants", "volunteers").replace("patients", "volunteers") + "\nIt was new in 2021.\n"
    )
    pipeline.run(load(recipe_file), tmp_path / "run")
    assert started(run)[len(FINISHED) :] == FINISHED
    new = [entry for entry in run.journal("teacher.jsonl").entries if entry["key"] not in before]
    sentences = 4 + 3  # the samples of one document, and at most three tries for its one exam question
    assert len(new) <= sentences
    again = [json.loads(line) for line in run.file("split.jsonl").read_text().splitlines()]
    assert {entry["group"]: entry["side"] for entry in again} == sides
    assert file_digest(run.file("adapter")) != digest


def test_a_changed_setting_reaches_only_the_stages_that_read_it(tmp_path, recipe_file):
    run = pipeline.run(load(recipe_file), tmp_path / "run")
    recipe = load(recipe_file)
    evaluation = recipe.evaluation.model_copy(update={"margin": 0.2})
    pipeline.run(recipe.model_copy(update={"evaluation": evaluation}), tmp_path / "run")
    assert started(run)[len(FINISHED) :] == ["evaluate", "report"]
    answers = [entry for entry in run.journal("answers-journal.jsonl").entries]
    assert len(answers) == len({json.dumps(entry, sort_keys=True) for entry in answers})
    states = pipeline.states(run, recipe)
    assert [state.stage.name for state in states if state.state != "fresh"] == ["evaluate", "report"]


@pytest.mark.slow
def test_two_runs_of_the_same_recipe_are_the_same(tmp_path, recipe_file):
    runs = [pipeline.run(load(recipe_file), tmp_path / name) for name in ("one", "two")]
    for name in ("exam.jsonl", "samples.jsonl", "train.jsonl", "adapter"):
        assert file_digest(runs[0].file(name)) == file_digest(runs[1].file(name)), name
    assert verdict(runs[0]) == verdict(runs[1])


def test_a_changed_exam_is_noticed_and_its_stage_runs_again(tmp_path, recipe_file):
    run = pipeline.run(load(recipe_file), tmp_path / "run", until="synth")
    sealed = file_digest(run.file("exam.jsonl"))
    run.file("exam.jsonl").write_text(run.file("exam.jsonl").read_text().replace("What", "Who"))
    pipeline.run(load(recipe_file), tmp_path / "run", until="exam")
    assert file_digest(run.file("exam.jsonl")) == sealed


def test_evaluate_refuses_an_exam_that_does_not_fit_its_seal(tmp_path, recipe_file):
    from tunewright.evaluation.stage import evaluate

    run = pipeline.run(load(recipe_file), tmp_path / "run", until="train")
    run.file("exam.jsonl").write_text(run.file("exam.jsonl").read_text().replace("What", "Who"))
    with pytest.raises(StageError, match="changed after it was sealed"):
        evaluate(run, load(recipe_file))


def test_a_run_up_to_a_stage_that_its_recipe_does_not_need_stops_before_the_next(tmp_path):
    """Chats alone are not ingested: "--until ingest" must not run the exam, let alone the training."""
    rows = [{"prompt": f"What is {n} plus {n}?", "completion": f"It is {2 * n}."} for n in range(40)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.toml").write_text('[synthesis]\ndata = ["chats.jsonl"]\n[exam]\nheld_out_share = 0.5\n')
    run = pipeline.run(load(tmp_path / "r.toml"), tmp_path / "run", until="ingest")
    assert not run.file("stages").exists()
    run = pipeline.run(load(tmp_path / "r.toml"), tmp_path / "run", until="hold-out")
    assert [path.name for path in run.file("stages").iterdir()] == ["hold-out.json"]


def test_the_learned_and_the_unseen_side_never_share_a_document(tmp_path, recipe_file):
    run = pipeline.run(load(recipe_file), tmp_path / "run", until="curate")
    held_out = {question.document for question in run.read_records("exam.jsonl", Question) if question.ring == "unseen"}
    assert held_out
    assert not held_out & {sample.document for sample in run.read_records("train.jsonl", Sample)}


def test_a_dead_teacher_stops_the_stage_and_the_rest_goes_on_later(tmp_path, tiny_model, abstracts, recipe_file):
    from support.faulty_server import Answer

    answered = []

    def dies(seen):
        answered.append(seen)
        return asks(seen) if len(answered) <= 12 else Answer(status=401, body={})

    with fake_teacher(dies) as server:
        path = write_recipe(tmp_path, tiny_model, server.url, abstracts)
        with pytest.raises(UserError, match="denies access"):
            pipeline.run(load(path), tmp_path / "run", until="synth")
        kept = calls(RunFolder.open(tmp_path / "run"))
        assert len(kept) >= 12
        server.respond = asks
        run = pipeline.run(load(path), tmp_path / "run", until="synth")
        assert calls(run)[: len(kept)] == kept
        assert len(set(calls(run))) == len(calls(run))


def test_own_chat_data_alone_trains(tmp_path, tiny_model, teacher):
    own = tmp_path / "own.jsonl"
    own.write_text(
        "".join(
            json.dumps(
                {
                    "messages": [
                        {"role": "user", "content": f"Which group is number {n}?"},
                        {"role": "assistant", "content": f"Group {n}."},
                    ]
                }
            )
            + "\n"
            for n in range(20)
        )
    )
    exam = tmp_path / "exam.csv"
    exam.write_text(
        "question,answer\n" + "".join(f"What is the name of group number {n}?,Group {n}.\n" for n in range(12))
    )
    path = write_recipe(
        tmp_path,
        tiny_model,
        teacher.url,
        tmp_path,
        documents={"paths": []},
        exam={"file": str(exam)},
        synthesis={"samples_per_document": 0, "data": [str(own)]},
        evaluation={"arms": ["base", "tuned"]},
    )
    run = pipeline.run(load(path), tmp_path / "run")
    assert not teacher.seen
    assert run.file("report.html").exists()
    assert len(run.read_records("train.jsonl", Sample)) == 20


@pytest.mark.slow
def test_a_judge_added_later_reads_the_answers_that_stand(tmp_path, recipe_file, tiny_model, teacher, abstracts):
    run = pipeline.run(load(recipe_file), tmp_path / "run")
    before, verdict = len(started(run)), run.file("verdict.json").read_bytes()

    def judges(seen):
        pair = "Answer A: " in seen.body["messages"][-1]["content"]
        claims = {"claims": [{"claim": "c", "verdict": "not mentioned"}]}
        return Answer(body=completion(json.dumps({"better": "tie"} if pair else claims)))

    with fake_teacher(judges) as server:
        judge = {"url": server.url, "model": "arbiter"}
        judged = write_recipe(tmp_path, tiny_model, teacher.url, abstracts, judge=judge)
        pipeline.run(load(judged), run.path)
        pipeline.run(load(judged), run.path)
        assert started(run)[before:] == ["judge", "report"] and server.seen
    assert run.file("verdict.json").read_bytes() == verdict  # a judge decides nothing
    assert "Judgments of a model" in run.file("report.html").read_text()
