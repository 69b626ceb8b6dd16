import json
import os
import pty
import subprocess
import sys

import pytest

from support.faulty_server import fake_teacher
from support.whole_path import asks, write_recipe
from tunewright.cli import main
from tunewright.commands.plan import show_plan
from tunewright.errors import RecipeError
from tunewright.recipe import load_recipe, parse_recipe
from tunewright.settings import TeacherSettings
from tunewright.teacher import keys
from tunewright.teacher.identity import check_teacher
from tunewright.teacher.keys import KeyUse, allow, origin, recipe_keys, require_allowed

CANARY = "canary-key-4711"


@pytest.fixture(autouse=True)
def own_config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(keys, "_session", set())
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "MY_KEY"):
        monkeypatch.setenv(name, CANARY)


@pytest.mark.parametrize(
    ("name", "where", "state"),
    [
        ("OPENAI_API_KEY", "https://api.openai.com", "its own service"),
        ("HF_TOKEN", "https://router.huggingface.co", "its own service"),
        ("OPENAI_API_KEY", "http://api.openai.com", "not allowed yet"),  # anybody on the way may read it
        ("OPENAI_API_KEY", "https://api.openai.com.evil.test", "not allowed yet"),
        ("OPENAI_API_KEY", "http://127.0.0.1:8000", "not allowed yet"),
        ("HF_TOKEN", "https://mine.endpoints.huggingface.cloud", "not allowed yet"),
        ("MY_KEY", "http://127.0.0.1:8000", "this machine"),
        ("MY_KEY", "http://[::1]:8000", "this machine"),
        ("MY_KEY", "http://localhost.evil.test", "not allowed yet"),
        ("HF_TOKEN", "http://127.0.0.1:8000", "never"),
        ("HF_TOKEN", "https://evilhuggingface.co", "never"),
        ("AWS_SECRET_ACCESS_KEY", "https://api.openai.com", "never"),
        ("AWS_BEARER_TOKEN_BEDROCK", "https://bedrock-runtime.us-west-2.amazonaws.com", "not allowed yet"),
        ("GITHUB_TOKEN", "https://stranger.test", "never"),
        ("GH_TOKEN", "https://models.github.ai", "its own service"),
        ("WANDB_API_KEY", "https://stranger.test", "never"),
        ("PGPASSWORD", "https://stranger.test", "never"),
        ("hf_token", "https://stranger.test", "never"),
        ("ACTIONS_RUNTIME_TOKEN", "http://127.0.0.1:8000", "never"),
        ("DATABRICKS_TOKEN", "https://me.cloud.databricks.com", "not allowed yet"),
        ("OPENAI_ADMIN_KEY", "http://127.0.0.1:8000", "not allowed yet"),
    ],
)
def test_where_a_key_may_go(name, where, state):
    assert KeyUse("teacher", name, where).state == state


@pytest.mark.parametrize("odd", ["\\", ";", "|", "%5c", "%00", " ", "\0", "?", "#"])
def test_no_odd_host_passes_for_a_subdomain(odd):
    """A host that ends at that character for the parser that opens the connection."""
    url = f"https://evil.test{odd}.huggingface.co/v1"
    assert origin(url) in ("", "https://evil.test")
    if not origin(url):
        with pytest.raises(RecipeError, match="not a URL"):
            check_teacher(TeacherSettings(url=url, model="m", api_key_env="HF_TOKEN"))


def test_an_allowed_key_is_remembered_for_that_server_alone():
    allow("MY_KEY@https://One.test:443/v1")
    assert keys.bindings_file().read_text() == "MY_KEY@https://one.test\n"
    assert keys.bindings_file().stat().st_mode & 0o077 == 0
    keys._session.clear()
    assert KeyUse("judge", "MY_KEY", origin("https://one.test/v1")).state == "allowed"
    for other in ("http://one.test", "https://one.test:444", "https://two.test", "https://a.one.test"):
        assert KeyUse("judge", "MY_KEY", other).state == "not allowed yet"
    assert KeyUse("judge", "YOUR_KEY", "https://one.test").state == "not allowed yet"
    allow("MY_KEY@https://one.test")
    assert len(keys.bindings_file().read_text().split()) == 1


@pytest.mark.parametrize(
    "binding", ["MY_KEY", "MY_KEY@one.test", "@https://one.test", "a b@https://one.test", f"K@https://u:{CANARY}@h"]
)
def test_a_malformed_binding_is_refused_and_not_repeated(binding):
    with pytest.raises(RecipeError, match="NAME@ORIGIN") as refused:
        allow(binding)
    assert CANARY not in str(refused.value)


def test_no_option_lets_the_key_of_another_service_go():
    with pytest.raises(RecipeError, match="another service"):
        allow("HF_TOKEN@https://stranger.test")


def test_without_a_home_to_write_to_a_key_is_allowed_for_one_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    allow("MY_KEY@https://one.test")
    assert KeyUse("judge", "MY_KEY", "https://one.test").state == "allowed"
    assert "for this command only" in capsys.readouterr().err


def exit_code(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


@pytest.mark.parametrize(
    ("name", "section", "message"),
    [
        ("HF_TOKEN", "teacher", "key of another service"),
        ("OPENAI_API_KEY", "teacher", "--allow-key OPENAI_API_KEY@http://127.0.0.1"),
        ("OPENAI_API_KEY", "judge", "--allow-key OPENAI_API_KEY@http://127.0.0.1"),
    ],
)
def test_a_strangers_recipe_gets_no_key_and_no_call(name, section, message, tmp_path, tiny_model, abstracts, capfd):
    with fake_teacher(asks) as server:
        more = {section: {"url": server.url, "model": "m", "api_key_env": name}}
        recipe = write_recipe(tmp_path, tiny_model, server.url, abstracts, **more)
        assert exit_code("run", recipe, "--dir", tmp_path / "run", "--until", "judge") == 1
        assert server.seen == []
    assert message in capfd.readouterr().err


def test_the_option_allows_it_once_and_for_later(tmp_path, tiny_model, abstracts, capfd):
    with fake_teacher(asks) as server:
        key = {"api_key_env": "OPENAI_API_KEY"}
        recipe = write_recipe(
            tmp_path, tiny_model, server.url, abstracts, teacher=key, synthesis={"samples_per_document": 1}
        )
        binding = f"OPENAI_API_KEY@{origin(server.url)}"
        until = ("run", recipe, "--dir", tmp_path / "run", "--until")
        assert exit_code(*until, "exam", "--allow-key", binding) == 0
        keys._session.clear()
        assert exit_code(*until, "synth") == 0
        assert {seen.headers["Authorization"] for seen in server.seen} == {f"Bearer {CANARY}"}
        capfd.readouterr()
        show_plan(load_recipe(recipe), tmp_path / "run")
        assert f"key of the teacher: OPENAI_API_KEY → {origin(server.url)} (allowed)" in capfd.readouterr().err
        assert exit_code("launch", recipe, "--print", "--gpu", "T4") == 0
        assert f"--allow-key {binding}" in capfd.readouterr().out
        assert exit_code("launch", recipe, "--print", "--gpu", "T4", "--for", "notebook") == 0
        cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(capfd.readouterr().out)["cells"]}
        assert f'chosen += ["--allow-key", "{binding}"]\n' in cells["plan"]


def test_plan_and_launch_say_which_key_is_not_allowed(tmp_path, capfd):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[teacher]\nurl = ["https://one.test/v1", "https://two.test/v1"]\nmodel = "m"\napi_key_env = "MY_KEY"\n'
        '[judge]\nurl = "https://three.test/v1"\nmodel = "j"\napi_key_env = "HF_TOKEN"\n[documents]\npaths = ["."]\n'
    )
    assert [use.binding for use in recipe_keys(load_recipe(recipe))] == [
        "MY_KEY@https://one.test",
        "MY_KEY@https://two.test",
        "HF_TOKEN@https://three.test",
    ]
    show_plan(load_recipe(recipe), tmp_path / "run")
    shown = capfd.readouterr().err
    assert "MY_KEY → https://two.test (not allowed yet" in shown
    assert "HF_TOKEN → https://three.test (refused" in shown
    assert exit_code("launch", recipe, "--print", "--gpu", "T4") == 0
    launched = capfd.readouterr()
    assert "launch with --allow-key MY_KEY@https://two.test" in launched.err
    assert "--allow-key" not in launched.out.replace("# Note", "").partition("run:")[2]


@pytest.mark.parametrize(("answer", "state"), [("y", "allowed"), ("n", "not allowed yet"), ("", "not allowed yet")])
def test_a_terminal_asks(answer, state):
    code = (
        "from tunewright.teacher.keys import *\n"
        "use = KeyUse('teacher', 'MY_KEY', 'https://one.test')\n"
        "try: require_allowed([use])\nexcept Exception: pass\nprint(use.state)"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE) as child:
        asked = b""
        while b"[y/N]" not in asked:
            asked += os.read(ours, 1000)
        os.write(ours, f"{answer}\n".encode())
        assert child.communicate(timeout=60)[0].decode().strip() == state
    os.close(ours)
    os.close(theirs)
    assert b"MY_KEY" in asked
    assert b"https://one.test" in asked


def test_a_recipe_without_a_key_needs_nothing():
    for content in (
        {},
        {"teacher": {"url": "https://one.test/v1", "model": "m"}},
        {"teacher": {"api_key_env": "HF_TOKEN"}},
    ):
        require_allowed(recipe_keys(parse_recipe(content, keys.bindings_file())))
