"""Keys in the environment are found in no file, no output and no traceback, on the whole path and in its failures.

To cover another command, add a step to ``STEPS``. Whatever it writes below the test's folder is searched.
"""

import base64
import json
import os
import re
import traceback
from pathlib import Path

import pytest

from support import pushable
from support.faulty_server import Answer, fake_teacher
from support.stand_in_hub import Fault, stand_in_hub
from support.warm_process import WarmProcess
from support.whole_path import asks, write_recipe
from tunewright import console
from tunewright.cli import main
from tunewright.console import without_secrets
from tunewright.errors import RecipeError, UserError
from tunewright.recipe import Recipe, parse_recipe, sections
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
        self.process = WarmProcess(self.environment)

    def __call__(self, *arguments, code=0):
        given = [str(argument) for argument in arguments]
        for word in ("RUN", "EVALUATED"):
            given = [argument.replace(word, str(self.folder / word.lower())) for argument in given]
        result = self.process.run(given, self.environment)
        assert result.returncode == code, result.stderr
        self.output += (result.stdout + result.stderr).encode()
        return result.stderr


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
        watch("push", "RUN", "no model of anyone", code=1)
        pushable.write(folder / "evaluated")
        hub.faults = [Fault("whoami", 401, message=f"{HUB_TOKEN} is revoked", times=1)]
        assert "Traceback" in watch("push", "EVALUATED", "me/my-model", "--yes", code=1)
        hub.faults = [Fault("commit/main", 403, message=f"Bearer {HUB_TOKEN} may not", times=1)]
        watch("push", "EVALUATED", "me/my-model", "--yes", code=1)
        watch("push", "EVALUATED", "them/their-model", "--yes", code=1)
        for step in STEPS:
            watch(*step)
        (folder / "evaluated/stages/train.json").write_text('{"outputs": []}')
        assert "Traceback" in watch("push", "EVALUATED", "me/my-model", code=1)
        yield watch, folder, hub, teacher
        watch.process.close()


@pytest.mark.slow
def test_the_canaries_were_used(watched):
    _, _, hub, teacher = watched
    assert {seen.headers["Authorization"] for seen in teacher.seen} == {f"Bearer {TEACHER_KEY}"}
    assert hub.authorizations == {f"Bearer {HUB_TOKEN}"}


@pytest.mark.slow
def test_no_key_is_in_any_file(watched):
    _, folder, _, _ = watched
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert {str(path): found(path.read_bytes()) for path in files if found(path.read_bytes())} == {}


@pytest.mark.slow
def test_no_key_is_printed_not_even_by_a_traceback_or_a_server_that_repeats_it(watched):
    watch, _, _, _ = watched
    assert b"Traceback" in watch.output
    lines = [line for line in re.split(rb"\r?\n", watch.output) if found(line)]
    assert lines == []


@pytest.mark.slow
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


def test_a_key_that_the_end_of_a_message_cuts_is_not_quoted():
    words = "no such key: " + "x" * 175
    with fake_teacher(lambda seen: Answer(401, {"error": {"message": f"{words} plain-canary-4711"}})) as server:
        endpoint = Endpoint(server.url, "m", 5, "Basic plain-canary-4711", {}, 1)
        with pytest.raises(UserError) as caught:
            endpoint.attempt(Request((Message(role="user", content="?"),), 4, 0.0, 0))
        endpoint.close()
    assert words in caught.value.cause
    assert "plain" not in caught.value.cause


def test_lines_and_warnings_repeat_no_key(monkeypatch, capsys):
    monkeypatch.setenv("TUNEWRIGHT_TEACHER_KEY", TEACHER_KEY)
    console.line(f"the teacher says: {TEACHER_KEY}")
    console.warning(f"refused: Bearer {TEACHER_KEY}")
    assert capsys.readouterr().err.count("[TUNEWRIGHT_TEACHER_KEY]") == 2


SECRET = "canary-in-a-setting-4711"
URLS = (
    f"http://user:{SECRET}@127.0.0.1:9/v1",
    f"https://{SECRET}@host/v1",
    f"htp://user:{SECRET}@host",
    f"http:/user:{SECRET}@host",
    f"https://host/v1?api_key={SECRET}",
    f"https://host/v1?a=1&key={SECRET}",
    f"https://host/v1?Subscription%2DKey={SECRET}",
    f"https://host/v1?x-access-token={SECRET}&b",
    f"https://host/v1;sig={SECRET}",
    f"https://host/v1#token={SECRET}",
    f"http://user:a?{SECRET}@host/v1",
    f"http://us#er:{SECRET}@host/v1",
    f"http:\\\\user:{SECRET}@host",
    f"//user:{SECRET}@host/v1",
    f"https://user:{SECRET}%40host/v1",
    f"https://user%253A{SECRET}%2540host/v1",
    f"https://host/v1?%2561ccess_token={SECRET}",
    f"https://host/v1?token%3D{SECRET}",
    f"https://host/v1?token='{SECRET}'",
    f'https://host/v1?token="{SECRET}"',
    f"https://host/v1?{'a' * 61}token={SECRET}",
    f"https://host/v1?q=1?token={SECRET}",
    f"https://host/v1?ｔｏｋｅｎ={SECRET}",
    f"https://host/v1?to\u200bken={SECRET}",
    f"https://host/v1/token={SECRET}",
    f"https://host/v1?api_key:{SECRET}",
    f"https://host/v1?header=Authorization:{SECRET}",
    f"https://host/v1?value=Bearer%20{SECRET}",
    *(f"https://host/v1?{name}={SECRET}" for name in ("sign", "hmac", "passcode", "userpass", "otp", "Authorization")),
)


def text_settings():
    return [
        (section, name, field.annotation)
        for section, kind in sections()
        for name, field in kind.model_fields.items()
        if "str" in str(field.annotation) or "Literal" in str(field.annotation) or field.annotation in (int, float)
    ]


@pytest.mark.parametrize("url", URLS)
def test_no_setting_takes_a_url_with_a_secret_or_repeats_it(url, tmp_path):
    assert len(text_settings()) > 50
    for section, name, kind in text_settings():
        for value in (url, [url], {"prompt": url}):
            with pytest.raises(RecipeError) as refused:
                parse_recipe({section: {name: value}}, tmp_path)
            shown = "".join(traceback.format_exception(refused.value))
            assert SECRET not in shown, (section, name, kind)
    with pytest.raises(RecipeError, match="api_key_env"):
        Recipe().comparing([url])


@pytest.mark.parametrize("url", [url.removeprefix("http://") for url in URLS[:1]] + [f"https://a:{SECRET[:5]}/x@host"])
def test_a_servers_url_needs_no_scheme_to_hold_a_password(url):
    with pytest.raises(RecipeError, match="password") as refused:
        parse_recipe({"teacher": {"url": ["https://host/v1", url]}}, Path())
    assert SECRET[:5] not in str(refused.value)


@pytest.mark.parametrize("key", ["sk-proj-4711canary4711", "hf_canaryHub4711neverStored", "my key", "a-b"])
def test_a_key_in_place_of_its_variable_is_refused_and_not_repeated(key):
    with pytest.raises(RecipeError, match="api_key_env") as refused:
        parse_recipe({"judge": {"api_key_env": key}}, Path())
    assert key not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://host/v1?api-version=2024-02-01",
        "https://host/@cf/meta",
        "http://[::1]:80/v1",
        "https://host/v1?author=me",
        "https://host/key/token/v1",
        "http://auth:8000/v1?authority=x&bypass=1",
        "https://host/wiki?title=Main:Page#section-token",
    ],
)
def test_a_url_without_a_secret_is_taken(url):
    assert parse_recipe({"teacher": {"url": url}, "documents": {"paths": [url]}}, Path()).teacher.url == url
    assert parse_recipe({"system_prompt": "Never use ftp://user:password@host."}, Path())


def test_a_secret_in_a_setting_reaches_neither_a_file_nor_a_screen(tmp_path, capfd):
    (tmp_path / "foreign.yaml").write_text(f"base_model: x\nadapter: lora\ndatasets: []\nmirror: {URLS[0]}\n")
    recipe, clean = tmp_path / "recipe.toml", tmp_path / "clean.toml"
    recipe.write_text(f'[teacher]\nurl = "{URLS[0]}"\nmodel = "m"\n')
    clean.write_text('[documents]\npaths = ["docs"]\n')
    made = tmp_path / "made"
    out = ("--dir", made / "run")
    for arguments in (
        ("run", recipe, *out),
        ("plan", recipe, *out),
        ("launch", recipe, "-o", made / "task.yaml", *out),
        ("run", clean, *out, "--set", f"teacher.url={URLS[4]}"),
        ("run", clean, *out, "--set", f"teacher.url:{URLS[4]}"),
        ("run", clean, *out, URLS[0]),
        ("evaluate", clean, *out, "--compare", URLS[0]),
        ("init", URLS[4], "-o", made / "recipe.toml"),
        ("import-config", tmp_path / "foreign.yaml", "-o", made / "imported.toml"),
    ):
        with pytest.raises(SystemExit):
            main([str(argument) for argument in arguments])
    printed = "".join(capfd.readouterr())
    assert "api_key_env" in printed
    assert SECRET not in printed
    assert [path for path in made.rglob("*") if path.is_file() and SECRET in path.read_text()] == []


def test_urls_are_printed_without_their_secrets(capsys):
    console.line(
        f"proxy http://me:{SECRET}@proxy:3128 failed; to https://host/a?x=1&sig={SECRET}&y=2, not https://h/@b"
    )
    printed = capsys.readouterr().err
    assert printed == "proxy http://…@proxy:3128 failed; to https://host/a?x=1&sig=…&y=2, not https://h/@b\n"


@pytest.mark.parametrize("url", URLS)
def test_a_url_with_a_secret_is_never_printed_whole(url):
    printed = without_secrets(f"cannot reach {url} now; see https://docs.test/a?page=2")
    assert SECRET not in printed
    assert printed.startswith("cannot reach ")
    assert printed.endswith(" now; see https://docs.test/a?page=2")
