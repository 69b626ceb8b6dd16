"""Keys in the environment are found in no file, no output and no traceback, on the whole path and in its failures.

To cover another command, add a step to ``STEPS``. Whatever it writes below the test's folder is searched.
"""

import base64
import json
import os
import re
import subprocess
import sys

import pytest

from support import pushable
from support.faulty_server import Answer, fake_teacher
from support.stand_in_hub import Fault, stand_in_hub
from support.whole_path import asks, write_recipe
from tunewright import console
from tunewright.console import without_secrets
from tunewright.errors import UserError
from tunewright.records import Message
from tunewright.teacher.endpoint import Endpoint
from tunewright.teacher.protocol import Request

TEACHER_KEY = "sk-canary-teacher-4711-never-stored"
HUB_TOKEN = "hf_canaryHub4711neverStoredAnywhere"
CANARIES = {
    "TUNEWRIGHT_TEACHER_KEY": TEACHER_KEY,
    "HF_TOKEN": HUB_TOKEN,
    "OPENAI_API_KEY": "sk-canary-openai-4711-never-stored",
    "WANDB_API_KEY": "canary-tracker-4711-never-stored",
}
STEPS = (  # commands that must work; RUN is a run that was really made, EVALUATED one whose verdict may be published
    ("status", "RUN"),
    ("report", "RUN"),
    ("inspect", "RUN"),
    ("exam", "RUN", "--export", "RUN/mine.csv"),
    ("mark", "EVALUATED"),
    ("export", "RUN", "--to", "adapter"),
    ("export", "RUN", "--to", "merged", "--dtype", "fp32"),
    ("verify", "RUN/exports/merged-fp32"),
    ("benchmark", "RUN", "agent-database", "--limit", "2"),
    ("chat", "RUN", "--prompt", "Who?"),
    ("launch", "RUN/recipe.toml", "-o", "RUN/task.yaml", "--gpu", "T4"),
    ("launch", "RUN/recipe.toml", "-o", "RUN/task.sh", "--gpu", "T4", "--for", "slurm"),
    ("launch", "RUN/recipe.toml", "-o", "RUN/notebook.ipynb", "--gpu", "T4", "--for", "notebook"),
    ("push", "EVALUATED", "me/my-model"),
    ("push", "EVALUATED", "me/my-model", "--yes", "--with-data"),
)


class Watch:
    """Runs commands with the canaries set and keeps all that they print."""

    def __init__(self, folder, hub):
        self.folder = folder
        self.output = b""
        self.environment = {
            **os.environ,
            **CANARIES,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hub-home"),
            "HF_HUB_DISABLE_XET": "1",
            "TUNEWRIGHT_TRACEBACK": "1",
            "NO_COLOR": "1",
        }

    def __call__(self, *arguments, code=0):
        given = [str(argument) for argument in arguments]
        for word in ("RUN", "EVALUATED"):
            given = [argument.replace(word, str(self.folder / word.lower())) for argument in given]
        command = [sys.executable, "-m", "tunewright", *given]
        result = subprocess.run(command, capture_output=True, env=self.environment, timeout=300, check=False)
        assert result.returncode == code, result.stderr.decode()
        self.output += result.stdout + result.stderr
        return result.stderr.decode()


def forms(secret):
    """The secret as it is, in base64 at each of its three offsets, and split by escapes of JSON."""
    raw = secret.encode()
    encoded = [base64.b64encode(b"x" * pad + raw)[4 if pad else 0 : -4] for pad in range(3)]
    return [raw, *encoded, json.dumps(secret)[1:-1].encode()]


def found(content):
    return sorted(name for name, secret in CANARIES.items() if any(form in content for form in forms(secret)))


@pytest.fixture(scope="module")
def watched(tmp_path_factory, tiny_model):
    """The whole path with failures on the way; yields what was printed, the folder, the hub and the teacher."""
    from tunewright.examples import abstracts_folder

    folder = tmp_path_factory.mktemp("canaries")
    echo = {"error": {"message": f"Incorrect API key provided: {TEACHER_KEY}. See the manual."}}
    faults = [Answer(401, echo), Answer(400, echo)]

    def respond(seen):
        return faults.pop(0) if faults else asks(seen)

    with stand_in_hub() as hub, fake_teacher(respond) as teacher:
        hub.token = HUB_TOKEN
        watch = Watch(folder, hub)
        key = {"api_key_env": "TUNEWRIGHT_TEACHER_KEY", "concurrency": 1}
        small = {"synthesis": {"samples_per_document": 2}, "training": {"epochs": 1}}
        recipe = write_recipe(folder, tiny_model, teacher.url, abstracts_folder(), teacher=key, **small)
        start = ("run", recipe, "--dir", "RUN")
        assert "Traceback" in watch(*start, code=1)
        watch(*start)
        assert not faults
        assert "INVALID" in watch("push", "RUN", "me/my-model", code=1)
        pushable.write(folder / "evaluated")
        hub.faults = [Fault("whoami", 401, message=f"{HUB_TOKEN} is revoked", times=1)]
        assert "Traceback" in watch("push", "EVALUATED", "me/my-model", "--yes", code=1)
        hub.faults = [Fault("commit/main", 403, message=f"Bearer {HUB_TOKEN} may not", times=1)]
        watch("push", "EVALUATED", "me/my-model", "--yes", code=1)
        watch("push", "EVALUATED", "them/their-model", "--yes", code=1)
        for step in STEPS:
            watch(*step)
        (folder / "evaluated/stages/train.json").write_text('{"outputs": []}')
        assert "Traceback" in watch("push", "EVALUATED", "me/my-model", code=3)
        yield watch, folder, hub, teacher


def test_the_canaries_were_used(watched):
    _, _, hub, teacher = watched
    assert {seen.headers["Authorization"] for seen in teacher.seen} == {f"Bearer {TEACHER_KEY}"}
    assert hub.authorizations == {f"Bearer {HUB_TOKEN}"}


def test_no_key_is_in_any_file(watched):
    _, folder, _, _ = watched
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert {str(path): found(path.read_bytes()) for path in files if found(path.read_bytes())} == {}


def test_no_key_is_printed_not_even_by_a_traceback_or_a_server_that_repeats_it(watched):
    watch, _, _, _ = watched
    assert b"Traceback" in watch.output
    lines = [line for line in re.split(rb"\r?\n", watch.output) if found(line)]
    assert lines == []


def test_no_key_is_pushed_and_each_server_gets_its_own_alone(watched):
    _, _, hub, teacher = watched
    pushed = [content for repo in hub.repos.values() for content in repo.files.values()]
    assert len(pushed) > 6
    assert not any(found(content) for content in [*pushed, *hub.objects.values()])
    asked = "".join(json.dumps([seen.path, seen.body]) for seen in teacher.seen)
    assert found(asked.encode()) == []


def test_the_search_finds_a_key_where_there_is_one():
    for name, secret in CANARIES.items():
        for pad in range(3):
            assert found(b"..." + secret.encode()) == [name]
            assert found(base64.b64encode(b"?" * pad + secret.encode() + b"more")) == [name]


def test_what_is_named_as_a_key_is_taken_out_and_nothing_else(monkeypatch):
    for name, value in (
        ("MY_API_KEY", "a-key-of-mine"),
        ("AWS_SECRET_ACCESS_KEY", "a-key-of-mine-that-is-longer\n"),
        ("HF_TOKEN_PATH", "/home/me/token-file"),
        ("SHORT_KEY", "true"),
        ("TOKENIZERS_PARALLELISM", "false-and-long"),
    ):
        monkeypatch.setenv(name, value)
    text = "a-key-of-mine-that-is-longer, a-key-of-mine, /home/me/token-file, true, false-and-long"
    assert without_secrets(text) == "[AWS_SECRET_ACCESS_KEY], [MY_API_KEY], /home/me/token-file, true, false-and-long"


def test_a_teacher_that_repeats_a_key_under_any_name_is_not_quoted():
    with fake_teacher(lambda seen: Answer(401, {"error": {"message": "no such key: plain-canary"}})) as server:
        endpoint = Endpoint(server.url, "m", 5, "plain-canary", {}, 1)
        with pytest.raises(UserError) as caught:
            endpoint.attempt(Request((Message(role="user", content="?"),), 4, 0.0, 0))
        endpoint.close()
    assert "no such key: …" in caught.value.cause


def test_lines_and_warnings_repeat_no_key(monkeypatch, capsys):
    monkeypatch.setenv("TUNEWRIGHT_TEACHER_KEY", TEACHER_KEY)
    console.line(f"the teacher says: {TEACHER_KEY}")
    console.warning(f"refused: Bearer {TEACHER_KEY}")
    assert capsys.readouterr().err.count("[TUNEWRIGHT_TEACHER_KEY]") == 2
