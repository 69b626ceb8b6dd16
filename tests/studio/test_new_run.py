"""New runs: hostile uploads, the form and its errors at the field, and a start that nobody presses unseen."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from support.studio import app_of, get, post, post_files
from tunewright.recipe import Recipe, dump_recipe
from tunewright.studio import recipe_form
from tunewright.studio.jobs import Jobs
from tunewright.studio.runs import key_of
from tunewright.studio.uploads import harmless_name, is_slug

TEXT = '[documents]\npaths = ["docs"]           # yours\n\n[training]\nepochs = 3\n'


@pytest.fixture(autouse=True)
def no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs wait for ever: what would be started is what these tests look at."""
    monkeypatch.setattr(Jobs, "move", lambda self: None)


@pytest.fixture
def app(tmp_path: Path) -> Any:
    return app_of(tmp_path)


def end(folder: Path, job: int, exit_code: int = 0) -> None:
    Jobs(folder).note_end(job, exit_code)


@pytest.mark.parametrize(
    "given",
    ["../../etc/cron.d/x.md", "/etc/passwd.md", "..\\..\\x.md", "C:\\Windows\\x.md", "a\x00b.md", ".bashrc.md", "x/../y.md",
     "con.md", "AUX.md", "\u202egnp.md", "a" * 400 + ".md", "é" * 300 + ".md", " .. .md", "-rf.md", "~root.md", "a\nb.md"],
)  # fmt: skip
def test_the_name_of_an_upload_never_leaves_its_folder(app: Any, tmp_path: Path, given: str) -> None:
    before = {path for path in tmp_path.parent.rglob("*") if path.is_file()}
    reply = post_files(app, "/new/files", [(given.replace('"', ""), b"Text of a document.")], {"name": "mine"})
    new = {path for path in tmp_path.parent.rglob("*") if path.is_file()} - before - {tmp_path / ".studio/jobs.sqlite"}
    assert all(path.parent == tmp_path / "uploads/mine" for path in new), new
    assert reply.status in (303, 400), reply.text
    name = harmless_name(given)
    assert "/" not in name and "\\" not in name and "\x00" not in name and not name.startswith(".")
    assert len(os.fsencode(name)) <= 120 and name.endswith(".md") and "\u202e" not in name


def test_names_keep_letters_of_all_languages_and_stay_apart(app: Any, tmp_path: Path) -> None:
    files = [("Ärzte 手册.md", b"a"), ("x/Ärzte 手册.md", b"b"), ("ÄRZTE 手册.md", b"c")]
    assert post_files(app, "/new/files", files, {"name": "mine"}).status == 303
    stored = sorted(path.read_bytes() for path in (tmp_path / "uploads/mine").iterdir())
    assert stored == [b"a", b"b", b"c"] and (tmp_path / "uploads/mine/Ärzte 手册.md").exists()
    job = Jobs(tmp_path).latest()[0]
    assert job.arguments == ("init", "uploads/mine", "-o", "mine.toml") and job.lane == "desk"


def test_an_exam_is_uploaded_beside_the_files_and_stays_apart_from_them(app: Any, tmp_path: Path) -> None:
    files, exam = [("chats.jsonl", b"{}")], [("../exam.jsonl", b"[]")]
    refused = post_files(app, "/new/files", [("x.exe", b"x")], {"name": "mine"}, exam)
    assert refused.status == 400 and not list((tmp_path / "uploads").iterdir())
    assert post_files(app, "/new/files", files, {"name": "mine"}, exam).status == 303
    assert [path.name for path in (tmp_path / "uploads/mine").iterdir()] == ["chats.jsonl"]
    assert (tmp_path / "uploads/mine.exam/exam.jsonl").read_bytes() == b"[]"
    words = Jobs(tmp_path).latest()[0].arguments
    assert words == ("init", "uploads/mine", "--exam", "uploads/mine.exam/exam.jsonl", "-o", "mine.toml")
    (tmp_path / "mine.toml").write_text(TEXT)
    assert post(app, f"/recipe/{key_of('mine.toml')}/discard", {"sure": "yes"}).status == 303
    assert not list((tmp_path / "uploads").iterdir())


def test_types_counts_and_sizes_are_limited(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x.exe", "x.md.dll", "noextension", "x"):
        reply = post_files(app, "/new/files", [(name, b"x")], {"name": "mine"})
        assert reply.status == 400 and "type" in reply.text, name
    assert post_files(app, "/new/files", [], {"name": "mine"}).status == 400
    assert post_files(app, "/new/files", [(f"{n}.md", b"x") for n in range(501)], {"name": "mine"}).status == 400
    monkeypatch.setattr("tunewright.studio.web.MOST_UPLOAD_BYTES", 1000)
    assert post_files(app, "/new/files", [("a.md", b"x" * 2000)], {"name": "mine"}).status == 413
    assert not (tmp_path / "uploads/mine").exists() and Jobs(tmp_path).latest() == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "A" * 50, "-x", "con", "a b", "a.b", "é", "x\x00", "nul.txt"])
def test_the_name_of_a_run_is_plain(app: Any, tmp_path: Path, name: str) -> None:
    assert not is_slug(name)
    assert post_files(app, "/new/files", [("a.md", b"x")], {"name": name.replace("\x00", "%00")}).status == 400
    assert not (tmp_path / "uploads").exists() or not any((tmp_path / "uploads").iterdir())


def test_only_listed_sources_are_read(app: Any, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("x")
    (tmp_path / "elsewhere").symlink_to("/etc")
    assert "docs (1 files" in get(app, "/new").text and "elsewhere" not in get(app, "/new").text
    for source in ("/etc", "..", "docs", key_of("elsewhere"), key_of("/etc")):
        assert post(app, "/new/folder", {"name": "mine", "source": source}).status == 400
    for dataset in ("../x", "--help", "a/b/../c", "a b/c"):
        assert post(app, "/new/folder", {"name": "mine", "dataset": dataset}).status == 400
    assert post(app, "/new/folder", {"name": "mine", "source": key_of("docs"), "dataset": "owner/name"}).status == 303
    assert Jobs(tmp_path).latest()[0].arguments == ("init", "docs", "hub:owner/name", "-o", "mine.toml")
    assert post(app, "/new/folder", {"name": "mine", "source": key_of("docs")}).status == 400  # the name is taken


def test_errors_are_at_their_field_and_change_nothing(app: Any, tmp_path: Path) -> None:
    path, page = tmp_path / "mine.toml", f"/recipe/{key_of('mine.toml')}"
    path.write_text(TEXT)
    reply = post(app, f"{page}/settings", {"training.epochs": "-1", "training.rank": "many", "model.base": "<b>x"})
    assert reply.status == 422 and path.read_text() == TEXT
    for name in ("training-epochs", "training-rank"):
        field = reply.text.split(f'id="{name}"')[1].split('class="field')[0]
        assert 'role="alert"' in field, name
    assert 'value="-1"' in reply.text and 'value="many"' in reply.text and "<b>x" not in reply.text
    base = reply.text.split('id="model-base"')[1].split('class="field')[0]
    assert 'role="alert"' not in base
    reply = post(app, f"{page}/settings", {"training.epochs": "0"})  # a rule between settings
    assert reply.status == 422 and "nothing to train" in reply.text


def test_a_key_is_refused_and_written_nowhere(app: Any, tmp_path: Path) -> None:
    path, page, key = tmp_path / "mine.toml", f"/recipe/{key_of('mine.toml')}", "sk-canary1234567890abcdef"
    path.write_text(TEXT)
    for name in ("teacher.api_key_env", "teacher.url"):
        value = f"https://host/v1?api_key={key}" if name == "teacher.url" else key
        assert post(app, f"{page}/settings", {name: value}).status == 422
    text = TEXT + f'[teacher]\napi_key_env = "{key}"\n'
    assert post(app, f"{page}/text", {"text": text}).status == 422
    assert all(key.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_the_form_edits_lines_in_place_and_keeps_notes(app: Any, tmp_path: Path) -> None:
    path, page = tmp_path / "mine.toml", f"/recipe/{key_of('mine.toml')}"
    path.write_text(TEXT)
    fields = {
        "training.epochs": "5",
        "training.rank": "8",
        "system_prompt": 'Be brief # and "exact".',
        "teacher.price": "[1, 2]",
    }
    assert post(app, f"{page}/settings", fields).status == 303
    text = path.read_text()
    assert 'paths = ["docs"]           # yours' in text and "epochs = 5" in text
    recipe = recipe_form.checked(text, tmp_path)
    assert (recipe.training.rank, recipe.system_prompt, recipe.teacher.price) == (
        8,
        fields["system_prompt"],
        (1.0, 2.0),
    )
    assert get(app, page).status == 200


def test_every_field_reads_back_as_it_is_shown(tmp_path: Path) -> None:
    recipe = Recipe(folder=tmp_path)
    groups = recipe_form.form_groups(recipe, {}, {})
    entered = {field.name: field.value for _, fields in groups for field in fields}
    assert recipe_form.changed_values(recipe, entered) == {}
    text = recipe_form.with_values(dump_recipe(recipe), {"training.epochs": 7, "refusal": "No."}, tmp_path)
    assert tomllib.loads(text)["training"]["epochs"] == 7 and text.count("refusal = ") == 1


def test_the_text_is_checked_and_kept_as_entered(app: Any, tmp_path: Path) -> None:
    path, page = tmp_path / "mine.toml", f"/recipe/{key_of('mine.toml')}"
    path.write_text(TEXT)
    for wrong in ("[training\n", "[training]\nepoch = 3\n", "</textarea><script>alert(1)</script>"):
        reply = post(app, f"{page}/text", {"text": wrong})
        assert reply.status == 422 and "<script>alert" not in reply.text and path.read_text() == TEXT
    assert "did you mean training.epochs" in post(app, f"{page}/text", {"text": "[training]\nepoch = 3\n"}).text
    assert post(app, f"{page}/text", {"text": "[training]\nepochs = 4\n"}).status == 303
    assert path.read_text() == "[training]\nepochs = 4\n"


def test_nothing_costly_starts_before_a_plan_of_the_recipe_as_it_is(app: Any, tmp_path: Path) -> None:
    path, page = tmp_path / "mine.toml", f"/recipe/{key_of('mine.toml')}"
    path.write_text(TEXT)
    for step in ("run", "exam", "preview"):
        assert "no plan yet" in post(app, f"{page}/start", {"step": step}).text
    assert post(app, f"{page}/start", {"step": "rm -rf"}).status == 400
    assert post(app, f"{page}/start", {"step": "plan"}).status == 303
    job = Jobs(tmp_path).latest()[0]
    assert job.arguments == ("plan", "mine.toml", "--dir", "runs/mine")
    end(tmp_path, job.id)
    os.utime(path, (job.created + 5, job.created + 5))  # edited after the plan
    assert "no plan yet" in post(app, f"{page}/start", {"step": "run"}).text
    os.utime(path, (job.created - 5, job.created - 5))
    reply = post(app, f"{page}/start", {"step": "run", "lane": "no such device"})
    assert reply.status == 303 and reply.headers["location"] == f"/run/{key_of('runs/mine')}"
    assert Jobs(tmp_path).latest()[0].arguments == ("run", "mine.toml", "--dir", "runs/mine")
    assert get(app, reply.headers["location"]).status == 200
    assert "already runs or waits" in post(app, f"{page}/start", {"step": "run"}).text


def test_a_key_goes_to_its_server_only_when_its_box_is_ticked(app: Any, tmp_path: Path) -> None:
    path, page = tmp_path / "mine.toml", f"/recipe/{key_of('mine.toml')}"
    path.write_text(TEXT + '[teacher]\nurl = "https://teacher.example/v1"\nmodel = "m"\napi_key_env = "MY_KEY"\n')
    assert "not allowed yet" in get(app, page).text
    post(
        app, f"{page}/start", {"step": "doctor", "allow": ["OTHER@https://evil.example", "MY_KEY@https://evil.example"]}
    )
    assert "--allow-key" not in Jobs(tmp_path).latest()[0].arguments
    post(app, f"{page}/start", {"step": "doctor", "allow": "MY_KEY@https://teacher.example"})
    assert Jobs(tmp_path).latest()[0].arguments[-2:] == ("--allow-key", "MY_KEY@https://teacher.example")


def test_a_recipe_is_deleted_only_on_purpose_and_never_with_a_run(app: Any, tmp_path: Path) -> None:
    assert post_files(app, "/new/files", [("a.md", b"x")], {"name": "mine"}).status == 303
    path, page = tmp_path / "mine.toml", f"/recipe/{key_of('mine.toml')}"
    path.write_text(TEXT)
    assert post(app, f"{page}/discard").status == 400 and path.exists()
    (tmp_path / "runs/mine").mkdir(parents=True)
    assert post(app, f"{page}/discard", {"sure": "yes"}).status == 400 and path.exists()
    (tmp_path / "runs/mine").rmdir()
    assert post(app, f"{page}/discard", {"sure": "yes"}).status == 303
    assert not path.exists() and not (tmp_path / "uploads/mine").exists()


def test_the_server_itself_opens_no_connection_for_an_address(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher's URL is a setting: the command that uses it checks it; the server has no client at all."""
    import socket

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    path, page = tmp_path / "mine.toml", f"/recipe/{key_of('mine.toml')}"
    path.write_text(TEXT)
    for url in (
        "http://169.254.169.254/latest/meta-data",
        "http://2852039166/",
        "http://[::ffff:169.254.169.254]/",
        "file:///etc/passwd",
    ):
        assert post(app, f"{page}/settings", {"teacher.url": url, "teacher.model": "m"}).status in (303, 422)
        assert get(app, page).status in (200, 422)
