"""The commands as a user types them: exit codes, hints, no torch in --help."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.faulty_server import Answer, fake_teacher
from support.json_output import json_of
from support.warm_process import run_command
from support.whole_path import asks, write_recipe
from tunewright.cli import commands, report_error
from tunewright.commands.json_documents import content
from tunewright.commands.status import read_report
from tunewright.run_folder import RunFolder

COMMANDS = tuple(commands.commands)


def tunewright(*arguments, **options):
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **options.pop("env", {})}
    return run_command(arguments, environment, **options)


def refused(result, code, *words):
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    return True


def test_help_names_every_command_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom tunewright.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit as end:\n"
        "    print(sorted({'torch', 'transformers', 'rich', 'pydantic', 'httpx'} & set(sys.modules)), end.code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[] 0"
    assert all(f"\n  {name} " in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    result = tunewright(command, "--help")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) >= 5


def test_wrong_usage_is_2():
    refused(tunewright("frobnicate"), 2, "No such command")
    refused(tunewright("run"), 2, "Missing argument")
    refused(tunewright("chat", ".", "--base", "--side-by-side"), 2, "Choose one")


def test_users_errors_are_1_with_a_hint(tmp_path):
    refused(tunewright("run", tmp_path / "none.toml"), 1, "there is no recipe", "hint: write one: tunewright init")
    refused(tunewright("status", tmp_path), 1, "is not a run folder", "hint:")
    refused(tunewright("inspect", tmp_path), 1, "is not a run folder", "hint:")
    (tmp_path / "r.toml").write_text("[training]\nepoch = 3\n")
    refused(tunewright("run", tmp_path / "r.toml"), 1, "did you mean training.epochs?")
    (tmp_path / "r.toml").write_text("[documents]\npaths = ['nothing']\n")
    refused(tunewright("run", tmp_path / "r.toml", "--dir", tmp_path / "x"), 1, "nothing", "hint:")
    refused(tunewright("run", tmp_path / "r.toml", "--until", "lunch"), 1, "ingest, split, hold-out, exam")
    (tmp_path / "empty").mkdir()
    refused(tunewright("init", tmp_path / "empty", "-o", tmp_path / "new.toml"), 1, "hint:")
    assert not (tmp_path / "new.toml").exists()


def test_a_traceback_is_there_for_those_who_ask(tmp_path):
    result = tunewright("run", tmp_path / "none.toml", env={"TUNEWRIGHT_TRACEBACK": "1"})
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_the_command_that_shows_a_defect_can_be_pasted(monkeypatch, capsys):
    from tunewright.cli import report_error

    words = ["run", "my recipe.toml", "--set", "teacher.model='a b'"]
    monkeypatch.setattr(sys, "argv", ["tunewright", *words])
    monkeypatch.setenv("COLUMNS", "1000")
    assert report_error(ZeroDivisionError("x")) == 3
    told = capsys.readouterr().err
    assert shlex.split(told.partition("TUNEWRIGHT_TRACEBACK=1 ")[2]) == ["tunewright", *words]


def test_init_writes_a_recipe_that_plan_understands(tmp_path, abstracts):
    recipe = tmp_path / "my recipe.toml"
    result = tunewright("init", abstracts, "-o", recipe)
    assert result.returncode == 0, result.stderr
    assert "12 file(s)" in result.stderr
    refused(tunewright("init", abstracts, "-o", recipe), 1, "exists", "--force")
    plan = tunewright("plan", recipe, "--dir", tmp_path / "run")
    assert plan.returncode == 0, plan.stderr
    assert "memory of training: about" in plan.stderr
    assert " calls" in plan.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model):
    """A finished run, made by the command itself, in a path with spaces."""
    from tunewright.examples import abstracts_folder

    folder = tmp_path_factory.mktemp("a path with spaces")
    with fake_teacher(asks) as server:
        recipe = write_recipe(folder, tiny_model, server.url, abstracts_folder())
        result = tunewright("run", recipe, "--dir", folder / "run")
        assert result.returncode == 0, result.stderr
        yield folder / "run", recipe, result


def test_run_ends_with_table_verdict_and_paths(finished):
    run, _, result = finished
    assert "verdict: " in result.stderr
    for name in ("report.html", "comparison.csv", "adapter"):
        assert str(run / name) in result.stderr
    assert result.stdout == ""


def test_a_second_run_does_nothing(finished):
    run, recipe, _ = finished
    result = tunewright("run", recipe, "--dir", run)
    assert result.returncode == 0
    assert result.stderr.count(": fresh") == 8


def test_status_report_and_trace(finished):
    run, _, _ = finished
    status = tunewright("status", run)
    assert status.returncode == 0
    assert status.stderr.count("fresh") == 8
    (run / "report.html").unlink()
    assert tunewright("report", run).returncode == 0
    assert (run / "report.html").exists()
    inspected = tunewright("inspect", run)
    assert inspected.returncode == 0
    assert "samples by task" in inspected.stderr
    assert str(run / "data.html") in inspected.stderr
    assert tunewright("status", run).stderr.count("fresh") == 8  # the page is the one that the report stage wrote
    sample = json.loads((run / "train.jsonl").read_text().splitlines()[0])
    trace = tunewright("trace", run, sample["id"])
    assert trace.returncode == 0
    assert "in the training set" in trace.stdout
    assert sample["document"] in trace.stdout
    question = json.loads((run / "exam.jsonl").read_text().splitlines()[0])
    assert "tuned+rag" in tunewright("trace", run, question["id"]).stdout
    document = tunewright("trace", run, sample["document"])
    assert sample["id"] in document.stdout
    refused(tunewright("trace", run, "zzzz"), 1, "no records have an identifier")


@pytest.mark.slow
def test_the_run_as_documents(finished):
    run, recipe, _ = finished
    assert json_of("status", run)["finished"]
    report = json_of("report", run)
    assert report["verdict"]["name"] == json_of("status", run)["verdict"]
    assert content(read_report(RunFolder.open(run))) == report  # as agents read it, without writing
    assert report["files"]["report.html"] == str(run / "report.html")
    plan = json_of("plan", recipe, "--dir", run.parent / "another")
    assert {stage["state"] for stage in plan["stages"]} == {"new"}
    assert plan["memory"]["total"] > plan["memory"]["base"] > 0
    assert sum(stage["calls"][1] for stage in plan["stages"]) > 0
    assert json_of("plan", recipe, "--dir", run)["seconds"] == 0


@pytest.mark.slow
def test_chat_answers_one_prompt_and_a_pipe(finished):
    run, _, _ = finished
    one = tunewright("chat", run, "--prompt", "Which group?")
    assert one.returncode == 0, one.stderr
    assert len(one.stdout) > 1
    both = tunewright("chat", run, "--side-by-side", input="Which group?\n\nAnd why?\n")
    assert both.stdout.count("base: ") == both.stdout.count("tuned: ") == 2


def test_a_secret_is_written_nowhere(tmp_path, tiny_model, abstracts):
    canary = "sk-canary-4711-never-stored"
    with fake_teacher(asks) as server:
        recipe = write_recipe(tmp_path, tiny_model, server.url, abstracts, teacher={"api_key_env": "MY_KEY"})
        refused(tunewright("run", recipe, "--dir", tmp_path / "run"), 1, "MY_KEY")
        result = tunewright("run", recipe, "--dir", tmp_path / "run", "--until", "synth", env={"MY_KEY": canary})
        assert result.returncode == 0, result.stderr
        assert server.seen[0].headers["Authorization"] == f"Bearer {canary}"
    assert canary not in result.stderr + result.stdout
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert canary.encode() not in path.read_bytes(), path


def test_a_second_process_on_the_folder_is_refused_and_ctrl_c_is_130(tmp_path, tiny_model, abstracts):
    def slow(seen):
        time.sleep(0.3)
        return asks(seen)

    with fake_teacher(slow) as server:
        recipe = write_recipe(tmp_path, tiny_model, server.url, abstracts, teacher={"concurrency": 1})
        command = [sys.executable, "-m", "tunewright", "run", str(recipe), "--dir", str(tmp_path / "run")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
            while not server.seen:
                time.sleep(0.05)
            refused(tunewright("run", recipe, "--dir", tmp_path / "run"), 1, "another process", str(first.pid))
            first.send_signal(signal.SIGINT)
            told = first.communicate(timeout=60)[1]
        assert first.returncode == 130
        assert "a run keeps its finished work" in told
        assert "Traceback" not in told


@pytest.mark.slow
def test_a_teacher_that_refuses_is_3_or_1_with_a_hint(tmp_path, tiny_model, abstracts):
    recipe = write_recipe(tmp_path, tiny_model, "http://127.0.0.1:9/v1", abstracts)
    result = tunewright("run", recipe, "--dir", tmp_path / "run")
    assert refused(result, 3, "hint:")
    with fake_teacher(lambda seen: Answer(body=b"<html>hello</html>")) as server:
        recipe = write_recipe(tmp_path, tiny_model, server.url, abstracts, teacher={"concurrency": 2})
        assert refused(tunewright("run", recipe, "--dir", tmp_path / "run"), 3, "hint:")


def test_unknown_model_and_no_network_are_told_apart(tmp_path, abstracts):
    for base, words in (("./no-such-folder", "there is no model at"), ("someone/something", "hub")):
        recipe = write_recipe(tmp_path, tmp_path, "http://127.0.0.1:9/v1", abstracts, model={"base": base})
        offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}  # read when a library is imported
        command = [sys.executable, "-m", "tunewright", "run", str(recipe), "--dir", str(tmp_path / "run")]
        result = subprocess.run(command, capture_output=True, text=True, env=offline, timeout=300)
        refused(result, 1, words, "hint:")


def test_a_finished_run_is_fresh_by_its_own_recipe_too(finished):
    run, _, _ = finished
    result = tunewright("run", run / "recipe.toml", "--dir", run)
    assert result.returncode == 0
    assert result.stderr.count(": fresh") == 8


@pytest.mark.parametrize(
    ("name", "before", "after", "told"),
    [
        ("verdict.json", '"name"', '"name" ', "verdict.json was changed"),
        ("exam.jsonl", "What", "Who", "exam.jsonl was changed after it was sealed"),
        ("rule.json", '"alpha": 0.05', '"alpha": 0.5', "alpha was 0.05 and is 0.5"),
        ("rules.jsonl", '"alpha":', '"alpha" :', "rules.jsonl was changed"),
        ("stages/evaluate.json", "{", "[", "stages/evaluate.json is missing or damaged"),
        ("recipe.toml", "margin = 0.1", "margin = 0.2", "evaluation.margin was 0.1 and is 0.2"),
    ],
)
def test_report_says_invalid_of_what_was_tampered_with(finished, tmp_path, name, before, after, told):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    text = (copy / name).read_text()
    assert before in text
    (copy / name).write_text(text.replace(before, after))
    result = tunewright("report", copy)
    refused(result, 1, "verdict: INVALID", name, told, "hint: undo the change, or rebuild it: ")
    assert told in (copy / "report.html").read_text()
    (copy / name).write_text(text)
    assert tunewright("report", copy).returncode == 0
    assert "The seal is broken" not in (copy / "report.html").read_text()


def test_changed_facts_are_scored_beside_the_gold_answers(finished):
    run, _, _ = finished
    answers = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    scored = {
        arm: {a["question"] for a in answers if a["arm"] == arm and "contrast_nll" in a} for arm in ("base", "tuned")
    }
    assert len(scored["base"]) >= 5
    assert scored["base"] == scored["tuned"]
    contrast = json.loads((run / "verdict.json").read_text())["results"]["contrast"]
    assert contrast["interval"]["num"] > 0
    assert "Style or knowledge?" in (run / "report.html").read_text()


@pytest.mark.slow
def test_exam_is_shown_and_its_seal_checked(finished, tmp_path):
    import shutil

    shown = tunewright("exam", finished[0])
    assert shown.returncode == 0, shown.stderr
    for word in ("learned", "unseen", "answerable", "10. [", "the seal holds"):
        assert word in shown.stderr
    shutil.copytree(finished[0], tmp_path / "run")
    exam = tmp_path / "run" / "exam.jsonl"
    exam.write_text(exam.read_text().replace("What", "Who"))
    refused(tunewright("exam", tmp_path / "run"), 1, "is not the sealed one", "exam.jsonl was changed", "--export")
    edited = tmp_path / "own.csv"
    refused(tunewright("exam", finished[0], "--export", tmp_path / "own.txt"), 1, "neither .csv nor .jsonl")
    assert tunewright("exam", finished[0], "--export", edited).returncode == 0
    refused(tunewright("exam", finished[0], "--export", edited), 1, "exists", "hint:")
    (tmp_path / "run" / "exam.jsonl").unlink()
    refused(tunewright("exam", tmp_path / "run"), 1, "has no exam yet", "--until exam")


@pytest.mark.slow
def test_damaged_records_of_stages_are_made_anew(finished, tmp_path):
    import shutil

    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "stages" / "evaluate.json").write_text("{}")
    assert "is damaged" in tunewright("status", tmp_path / "run").stderr
    assert tunewright("run", tmp_path / "run" / "recipe.toml", "--dir", tmp_path / "run").returncode == 0


@pytest.mark.parametrize(
    ("former", "now"), [("ingest", "run RECIPE --until ingest"), ("table", "compare"), ("replay", "verify --replay")]
)
def test_a_former_command_names_its_replacement(former, now):
    result = tunewright(former, "x")
    assert result.returncode == 2 and f"Type: tunewright {now}" in result.stderr


def test_a_key_that_no_header_may_carry_is_refused_unseen(tmp_path, tiny_model, abstracts):
    recipe = write_recipe(tmp_path, tiny_model, "http://127.0.0.1:9/v1", abstracts, teacher={"api_key_env": "MY_KEY"})
    result = tunewright("run", recipe, "--dir", tmp_path / "run", env={"MY_KEY": "sk-secret\n123"})
    refused(result, 1, "MY_KEY", "is malformed")
    assert "sk-secret" not in result.stderr


@pytest.mark.slow
def test_closed_or_odd_input_and_output(finished):
    run, _, _ = finished
    command = [sys.executable, "-m", "tunewright", "chat", str(run)]
    closed = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *command], capture_output=True, text=True, timeout=120)
    refused(closed, 1, "--prompt")
    odd = subprocess.run(command, input=b"\xff?\n", capture_output=True, timeout=120)
    assert odd.returncode == 0
    with Path("/dev/full").open("w") as full:
        document = json.loads((run / "documents.jsonl").read_text().splitlines()[0])["id"]
        trace = [*command[:-2], "trace", str(run), document]
        result = subprocess.run(trace, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    refused(result, 1, "cannot write to standard output")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.EROFS, os.strerror(errno.EROFS), "/run/report.html"),
            ("cannot use /run/report.html", "Read-only"),
        ),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), b"/a"), ("cannot use /a", "Permission denied")),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ("No space left", "free some space")),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "x"), ("Too many open files", "ulimit")),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "gone"), ("cannot use gone", "No such file")),
        (ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)), ("Connection reset",)),
        (MemoryError(), ("the memory of this machine is used up",)),
    ],
)
def test_ordinary_trouble_is_an_error_with_its_cause_and_no_defect(error, words, capsys):
    assert report_error(error) == 3
    shown = capsys.readouterr().err
    assert "defect" not in shown and "hint" in shown
    assert all(word in shown for word in words)


def test_an_error_of_the_program_is_a_defect(capsys):
    for error in (ValueError("x"), KeyError("x"), OSError("a library's own words"), AssertionError()):
        assert report_error(error) == 3
        assert "defect" in capsys.readouterr().err
