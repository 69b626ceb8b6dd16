"""Push against a stand-in of the hub: what is shown, what is sent, what is refused, and how a break ends."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support import pushable
from support.stand_in_hub import TOKEN, Fault, Repo, stand_in_hub
from tunewright import cli
from tunewright.annotation.plan import answer_pairs_digest, pairs
from tunewright.export.receipt import write_receipt
from tunewright.records import Answer, Question
from tunewright.run_folder import RunFolder
from tunewright.storage import file_digest

REPO = "me/my-model"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that the library of this process talks to, without its storage protocol and without waiting."""
    with stand_in_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        yield server


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return pushable.write(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(finished, tmp_path):
    return RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))


def push(capsys, run, *flags):
    """Push in this process; return the exit code and all that was printed, in which the token never is."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["push", str(run.path), REPO, *flags])
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert TOKEN not in text
    assert "X-Sig" not in text
    return ended.value.code, text


def refused(capsys, run, *words, flags=("--yes",)):
    code, text = push(capsys, run, *flags)
    assert code == 1, text
    assert "hint: " in text
    for word in words:
        assert word in text, text
    return text


def test_without_yes_everything_is_shown_and_no_request_is_sent(hub, run, capsys):
    code, text = push(capsys, run, "--with-data")
    assert code == 0, text
    weights = hashlib.sha256(pushable.WEIGHTS).hexdigest()
    for word in (
        "adapter_model.safetensors",
        "10,240",
        weights[:20],
        "private",
        "## Verdict: USE RAG",
        "my-model-data",
    ):
        assert word in text, text
    assert f"tunewright push {run.path} {REPO} --yes --with-data" in text
    assert hub.requests == []


def test_yes_makes_a_private_repository_with_exactly_the_shown_files(hub, run, capsys):
    code, text = push(capsys, run, "--yes")
    assert code == 0, text
    repo = hub.repos[REPO]
    assert repo.private
    assert set(repo.files) == {"README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    assert repo.files["adapter_model.safetensors"] == pushable.WEIGHTS
    assert len(repo.commits) == 1
    assert f"{REPO}-data" not in hub.repos
    config = json.loads(repo.files["adapter_config.json"])
    assert config == {"base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct", "r": 16}
    assert not any(b"/home/someone" in content for content in repo.files.values())
    assert hub.authorizations == {f"Bearer {TOKEN}"}


def test_a_second_push_sends_nothing_and_one_changed_card_sends_the_card(hub, run, capsys):
    push(capsys, run, "--yes")
    code, text = push(capsys, run, "--yes")
    assert code == 0
    assert "nothing to send, 4 already there" in text
    assert len(hub.repos[REPO].commits) == 1
    hub.repos[REPO].files["README.md"] = b"edited on the hub"
    push(capsys, run, "--yes")
    assert hub.repos[REPO].commits[1:] == [["README.md"]]
    assert set(hub.stored.values()) == {1}


def test_data_goes_to_a_repository_of_its_own_and_the_exam_to_none(hub, run, capsys):
    code, text = push(capsys, run, "--yes", "--with-data")
    assert code == 0, text
    data = hub.repos[f"datasets/{REPO}-data"]
    assert data.private
    assert set(data.files) == {"README.md", "data/train.jsonl"}
    assert data.files["data/train.jsonl"] == run.file("train.jsonl").read_bytes()
    assert b"datasets:\n- me/my-model-data" in hub.repos[REPO].files["README.md"]


def test_a_repository_is_public_only_with_the_flag(hub, run, capsys):
    hub.repos[REPO] = Repo(private=False, files={"old.bin": b"x"})
    refused(capsys, run, "is public", "--public")
    assert hub.repos[REPO].commits == []
    code, text = push(capsys, run, "--yes", "--public")
    assert code == 0, text
    assert "old.bin" in text


@pytest.mark.parametrize("file", ["adapter/adapter_model.safetensors", "adapter/extra.py"])
def test_a_changed_adapter_is_not_pushed(hub, run, capsys, file):
    run.write(file, b"something else")
    refused(capsys, run, "is not the evaluated one", flags=())
    refused(capsys, run, "is not the evaluated one")
    assert hub.requests == []


def test_an_adapter_that_was_trained_again_after_the_evaluation_is_not_pushed(hub, run, capsys):
    pushable.record(run, "evaluate", "ingredients", adapter="0" * 64)
    refused(capsys, run, "after it was evaluated")
    assert hub.requests == []


def test_changed_data_is_not_pushed(hub, run, capsys):
    run.write("train.jsonl", run.file("train.jsonl").read_bytes() + b"\n")
    refused(capsys, run, "train.jsonl", "not what was trained on", flags=("--yes", "--with-data"))
    assert hub.requests == []


def test_data_that_no_stage_vouches_for_is_not_pushed(hub, run, capsys):
    run.write_json("stages/curate.json", [])
    refused(capsys, run, "train.jsonl", "not what was trained on", flags=("--yes", "--with-data"))
    assert hub.requests == []


@pytest.mark.parametrize("target", ["ollama", "gguf-adapter"])
def test_a_target_without_a_card_is_refused_before_it_is_exported(hub, run, capsys, monkeypatch, target):
    monkeypatch.setattr("tunewright.commands.push.export", None)
    refused(capsys, run, f"no card can be written for an export '{target}'", "gguf", flags=("--yes", "--to", target))
    assert hub.requests == []


def test_a_look_at_an_export_that_is_not_there_makes_none_and_yes_does(hub, run, capsys, monkeypatch):
    made = []
    monkeypatch.setattr("tunewright.commands.push.export", lambda *args: made.append(args[1]))
    run.write("exports/gguf-adapter-f16/receipt.json", "{}")  # of another target, which the name begins with
    refused(capsys, run, "no export merged", f"tunewright export {run.path} --to merged", flags=("--to", "merged"))
    assert made == []
    refused(capsys, run, "no export merged", flags=("--to", "merged", "--yes"))
    assert made == ["merged"]


def test_an_invalid_verdict_and_a_broken_seal_are_not_pushed(hub, tmp_path, capsys):
    few = pushable.finished_run.documents(4)
    refused(capsys, pushable.write(tmp_path / "few", docs=few), "INVALID", "at least 5")
    broken = pushable.write(tmp_path / "broken")
    exam = broken.file("exam.jsonl").read_text().replace("What is", "What was", 1)
    broken.write("exam.jsonl", exam)
    refused(capsys, broken, "seal", "exam.jsonl was changed")
    assert hub.requests == []


def test_a_worse_model_is_pushed_and_its_card_says_so(hub, tmp_path, capsys):
    quality = {"base": 0.9, "few-shot": 0.9, "similar-shot": 0.9, "rag": 0.9, "tuned": 0.1, "tuned+rag": 0.2}
    code, text = push(capsys, pushable.write(tmp_path / "worse", quality=quality), "--yes")
    assert code == 0, text
    card = hub.repos[REPO].files["README.md"].decode()
    assert "## Verdict: WORSE" in card
    assert "Do not use this adapter" in card
    assert "- verdict-worse" in card


def test_a_preference_against_the_score_is_on_top_of_the_card(hub, run, capsys):
    verdict = run.read_json("verdict.json")
    score = next(d for d in verdict["results"]["differences"] if (d["first"], d["second"]) == ("tuned", "base"))
    assert score["interval"]["low"] > 0
    questions, answers = run.read_records("exam.jsonl", Question), run.read_records("answers.jsonl", Answer)
    nothing = {"num": 0, "of": 0, "share": None, "low": 0.0, "high": 1.0}
    marking = {
        "arms": ["base", "tuned"],
        "num_marks": 30,
        "markers": {"Ann": 30},
        "blind": True,
        "choices": {"better": 30},
        "others": 0,
        "same": 0,
        "num_questions": 30,
        "wins": {"base": 30},
        "win_share": nothing,
        "p": 0.001,
        "preference": {**score["interval"], "mean": -0.9, "low": -1.0, "high": -0.8},
        "e_value": {"wins": 0, "losses": 30, "value": 99.0, "stop": True},
        "left_chosen": nothing,
        "self_agreement": nothing,
        "alpha": None,
        "longest": {"name": "longest", "agreed": 0, "opposed": 30, "equal": 0, "share": 0.0},
        "metrics": [],
        "answers": answer_pairs_digest(pairs(questions, answers, ("base", "tuned"))),
    }
    run.write_json("marking.json", marking)
    code, text = push(capsys, run)
    assert code == 0, text
    reasons = text.partition("## Verdict: USE RAG")[2].strip().splitlines()
    assert reasons[0].startswith("- People and the score disagree")
    assert "People marked 30 questions blind: tuned over base" in text
    assert "human marks" not in text
    assert "a judge model's opinion" in text


@pytest.mark.parametrize(
    "pattern, status, words",
    [
        ("whoami", 401, ["refused the token", "401", "settings/tokens"]),
        ("preupload", 403, ["may not write to me/my-model", "403", "right in me"]),
        ("GET /api/models", 404, ["no repository me/my-model", "404"]),
        ("commit/main", 409, ["changed by someone else", "409"]),
        ("commit/main", 412, ["changed by someone else", "412"]),
        ("repos/create", 429, ["asks to wait", "429"]),
        ("PUT /store", 429, ["asks to wait", "429"]),
        ("whoami", 503, ["in trouble", "503", "status.huggingface.co"]),
        ("PUT /store", 500, ["in trouble", "500"]),
        ("commit/main", 400, ["rejects the push", "400", "the reason"]),
        ("commit/main", 418, ["refuses to accept", "418"]),
        ("whoami", None, ["cannot be reached", "connection"]),
    ],
)
def test_each_refusal_has_its_own_message(hub, run, capsys, pattern, status, words):
    hub.faults = [Fault(pattern, status, message="the reason" if status == 400 else "")]
    refused(capsys, run, *words)
    assert hub.repos.get(REPO) is None or hub.repos[REPO].commits == []


def test_the_error_for_a_repository_of_somebody_else_has_the_hubs_own_words(hub, run, capsys):
    with pytest.raises(SystemExit):
        cli.main(["push", str(run.path), "them/my-model", "--yes"])
    text = capsys.readouterr().err
    assert "may not write to them/my-model" in text
    assert "You don't have the rights" in text


@pytest.mark.parametrize(
    "fault",
    [
        Fault("whoami", 429, times=1, headers={"Retry-After": "1"}),
        Fault("repos/create", 500, times=2),
        Fault("preupload", 503, times=1),
        Fault("objects/batch", 500, times=1),
        Fault("PUT /store", 500, times=2),
        Fault("PUT /store", None, times=3),
        Fault("commit/main", 502, times=2),
        Fault("commit/main", None, times=1),
    ],
    ids=lambda fault: f"{fault.pattern}-{fault.status}",
)
def test_a_passing_fault_is_waited_out(hub, run, capsys, fault):
    hub.faults = [fault]
    code, text = push(capsys, run, "--yes")
    assert code == 0, text
    assert fault.met == fault.times
    assert len(hub.repos[REPO].commits) == 1
    assert set(hub.stored.values()) == {1}


def test_a_hub_that_does_not_answer_is_not_waited_for_forever(hub, run, capsys, monkeypatch):
    monkeypatch.setattr("tunewright.hub.upload._TIMEOUT_S", 0.2)
    hub.faults = [Fault("commit/main", hold=threading.Event())]
    refused(capsys, run, "did not answer in time")


def test_no_token_a_broken_token_and_no_network_have_their_own_messages(hub, run, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    refused(capsys, run, "no token", "hf auth login")
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN} {TOKEN}")
    refused(capsys, run, "the token for the hub is malformed")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(capsys, run, "HF_HUB_OFFLINE is set")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused(capsys, run, "cannot be reached", "no network")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["my-model", "a/b/c", "me/..", "me/my model", "-me/model", "me/x--y"])
def test_what_is_no_repository_is_refused(hub, run, capsys, name):
    with pytest.raises(SystemExit) as ended:
        cli.main(["push", "--yes", "--", str(run.path), name])
    assert ended.value.code == 1
    assert "is not a repository name" in capsys.readouterr().err
    assert hub.requests == []


def test_a_push_after_a_kill_sends_only_what_is_missing(run, tmp_path):
    """Killed (SIGKILL) while a large file goes up; run again, each file is stored once and committed once."""
    environment = {
        **os.environ,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "home"),
    }
    command = [sys.executable, "-m", "tunewright", "push", str(run.path), REPO, "--yes"]
    weights = hashlib.sha256(pushable.WEIGHTS).hexdigest()
    with stand_in_hub(Fault(f"PUT /store/{weights}", hold=threading.Event(), times=1)) as hub:
        environment["HF_ENDPOINT"] = hub.url
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as first:
            while not (hub.faults[0].met and hub.stored):
                assert first.poll() is None
                time.sleep(0.05)
            first.send_signal(signal.SIGKILL)
        assert hub.repos[REPO].files == {}
        assert weights not in hub.objects
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stderr
        assert set(hub.stored.values()) == {1}
        assert len(hub.stored) == 2
        assert len(hub.repos[REPO].commits) == 1
        assert len(hub.repos[REPO].files) == 4


def test_an_exported_adapter_is_not_pushed_as_the_evaluated_one(hub, run, capsys):
    run.write("exports/adapter-original/adapter_model.safetensors", b"of another base")
    made_of = {"adapter": file_digest(run.file("adapter"))}
    write_receipt(run.file("exports/adapter-original"), {"target": "adapter", "made_of": made_of})
    for flags in (("--to", "adapter-original"), ("--to", "adapter-original", "--yes")):
        refused(capsys, run, "adapter-original is an export of the adapter", "omit --to", flags=flags)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("stage", "words"), [("train", "that the training wrote it"), ("evaluate", "it was evaluated")]
)
def test_an_adapter_without_a_record_is_not_said_to_have_been_changed(hub, run, capsys, stage, words):
    content = run.read_json(f"stages/{stage}.json")
    for part in ("outputs", "ingredients"):
        content.get(part, {}).pop("adapter", None)
    run.write_json(f"stages/{stage}.json", content)
    text = refused(capsys, run, "is not the evaluated one", "no record says", words)
    assert "was changed" not in text
