"""Several servers of one model."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from support.faulty_server import Answer, FakeTeacher, Seen, echo, fake_teacher
from tunewright.errors import RecipeError, TeacherError
from tunewright.recipe import Recipe, dump_recipe, load_recipe
from tunewright.records import Message
from tunewright.run_folder import RunFolder
from tunewright.settings import TeacherSettings
from tunewright.stages import teacher_name
from tunewright.teacher import Request, open_teacher, teacher_identity
from tunewright.teacher.client import ChatClient, Retries

FAST = Retries(first_wait_s=0.001, longest_wait_s=0.002)


def asks(number: int) -> list[Request]:
    return [Request((Message(role="user", content=f"question {n}"),), 16, 0.0, 0) for n in range(number)]


def fleet(*urls: str, **changes: object) -> TeacherSettings:
    return TeacherSettings(url=urls, model="m", **changes)


@contextmanager
def nowhere() -> Iterator[str]:
    """A URL that refuses connections."""
    with socket.socket() as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run")


def test_calls_are_spread_over_the_servers(run):
    both, together = threading.Barrier(2), threading.Barrier(8)

    def respond(seen: Seen) -> Answer:
        first = seen.body["messages"][0]["content"] in ("question 8", "question 9")  # at each server, made alone
        (both if first else together).wait(10)  # breaks unless eight calls are here at once: four at each server
        return echo(seen)

    with ExitStack() as stack:
        servers = [stack.enter_context(fake_teacher(respond)) for _ in range(2)]
        settings = fleet(*[server.url for server in servers], concurrency=8)
        with open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher:
            teacher.ask_all(asks(10)[8:], "asking")
            replies = teacher.ask_all(asks(8), "asking")
        assert [reply.text for reply in replies if reply] == [f"QUESTION {n}" for n in range(8)]
        assert [len(server.seen) for server in servers] == [5, 5]


def complete_all(client: ChatClient, number: int) -> list[str]:
    return [client.complete(request).text for request in asks(number)]


def test_a_server_that_cannot_be_reached_is_set_aside(run):
    with nowhere() as gone, fake_teacher() as server:
        client = ChatClient([gone, server.url], "m", 5, connections=4, retries=FAST)
        assert complete_all(client, 30) == [f"QUESTION {n}" for n in range(30)]
        assert len(server.seen) == 30


@pytest.mark.parametrize("bad", [Answer(500, b"oops"), Answer(200, b"{"), Answer(429), Answer(503)])
def test_a_server_that_keeps_failing_does_not_draw_the_calls(bad):
    """It is quick, and so has the fewest calls under way: yet it must not be asked each time."""
    with fake_teacher(lambda seen: bad) as broken, fake_teacher() as server:
        retries = Retries(first_wait_s=30, longest_wait_s=30)
        client = ChatClient([broken.url, server.url], "m", 5, connections=4, retries=retries)
        assert complete_all(client, 40) == [f"QUESTION {n}" for n in range(40)]
        assert len(broken.seen) <= 3
        assert len(server.seen) == 40


def test_a_server_that_was_set_aside_is_tried_again():
    server: FakeTeacher
    with fake_teacher(lambda seen: Answer(500)) as server, fake_teacher() as other:
        client = ChatClient([server.url, other.url], "m", 5, connections=4, retries=FAST)
        complete_all(client, 20)
        server.respond = echo
        before = len(server.seen)
        threading.Event().wait(0.01)
        complete_all(client, 20)
        assert len(server.seen) >= before + 5


def test_when_no_server_is_left_the_stage_ends_and_names_them(run):
    with nowhere() as first, nowhere() as second:
        client = ChatClient([first, second], "m", 5, retries=FAST)
        with pytest.raises(TeacherError, match="cannot reach") as caught:
            client.complete(asks(1)[0])
        assert first in caught.value.headline
        assert second in caught.value.headline


def test_a_request_that_every_server_breaks_on_fails_after_bounded_tries(run):
    with fake_teacher(lambda seen: Answer(500)) as first, fake_teacher(lambda seen: Answer(500)) as second:
        settings = fleet(first.url, second.url, concurrency=1)
        with (
            open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher,
            pytest.raises(TeacherError, match="calls to the teacher"),
        ):
            teacher.ask_all(asks(1), "asking")
        assert len(first.seen) + len(second.seen) == Retries().broken


def test_the_identity_of_a_fleet_does_not_depend_on_its_servers():
    first, second = fleet("http://a/v1", "http://b/v1"), fleet("http://b/v1", "http://a/v1", "http://c/v1")
    assert teacher_identity(first) == teacher_identity(second)
    assert teacher_identity(first) != teacher_identity(first.model_copy(update={"model": "n"}))
    assert teacher_name(Recipe(teacher=first)) == teacher_identity(first)


def test_the_journal_is_kept_when_servers_come_and_go(run):
    with fake_teacher() as server:
        single = TeacherSettings(url=server.url, model="m")
        with open_teacher(run.journal("teacher.jsonl"), single, "synth") as teacher:
            first = teacher.ask_all(asks(5), "asking")
        with open_teacher(run.journal("teacher.jsonl"), fleet("http://x:1/v1", server.url), "synth") as teacher:
            assert teacher.ask_all(asks(5), "asking") == first
            assert teacher.num_calls == 0
        with open_teacher(run.journal("teacher.jsonl"), fleet(server.url), "synth") as teacher:
            longer = teacher.ask_all(asks(9), "asking")
            assert teacher.num_calls == 4
        assert len(server.seen) == 9
    with open_teacher(run.journal("teacher.jsonl"), single, "synth") as teacher:  # the server is gone
        assert teacher.ask_all(asks(9), "asking") == longer


def test_another_address_alone_is_another_teacher(run):
    with fake_teacher() as first, fake_teacher() as second:
        for server in (first, second):
            with open_teacher(
                run.journal("teacher.jsonl"), TeacherSettings(url=server.url, model="m"), "synth"
            ) as teacher:
                teacher.ask_all(asks(2), "asking")
        assert [len(first.seen), len(second.seen)] == [2, 2]


def test_a_list_of_urls_in_a_recipe_round_trips(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('[teacher]\nurl = ["http://a/v1", "http://b/v1"]\nmodel = "m"\n', encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.teacher.urls == ("http://a/v1", "http://b/v1")
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert load_recipe(path, ["teacher.url=http://c/v1"]).teacher.urls == ("http://c/v1",)
    assert load_recipe(path, ['teacher.url=["http://c/v1"]']).teacher.url == ("http://c/v1",)


@pytest.mark.parametrize("value", ["[]", '["http://a/v1", "http://a/v1"]', '""'])
def test_an_empty_or_repeated_url_is_refused(tmp_path, value):
    path = tmp_path / "recipe.toml"
    path.write_text(f"[teacher]\nurl = {value}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="wrong setting"):
        load_recipe(path)


def test_every_url_of_a_list_is_checked(run):
    with (
        pytest.raises(RecipeError, match="'embedded' is not a URL"),
        open_teacher(run.journal("teacher.jsonl"), fleet("http://a/v1", "embedded"), "s"),
    ):
        pass
