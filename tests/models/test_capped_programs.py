"""A stranger's chat template and an adapter's patterns run within limits, and write what transformers would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from support.families import WORDS, turns
from support.tiny import CHATML, make_model
from tunewright.errors import ModelError
from tunewright.models import capped_programs
from tunewright.models.capped_programs import ProgramError, RefusedError, check_patterns, rendered
from tunewright.models.chat_template import TEMPLATE_VARIABLES, load_tokenizer, render

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
TIME = {
    "loops in loops": ENDLESS,
    "a macro that calls itself twice": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
    "{{ m(60) }}",
    "a large power": "{{ 7 ** (7 ** 9) }}",
    "only after the third turn": "{% if messages | length > 3 %}" + ENDLESS + "{% endif %}",
    "only for one text": "{% if messages[0].content == 'why?' %}" + ENDLESS + "{% endif %}",
}
MEMORY = {
    "a padded number": "{{ '%1000000000d' | format(1) }}",
    "a repeated text": "{{ 'x' * 3000000000 }}",
    "a doubled text": "{% set n = namespace(t='x' * 1000) %}{% for i in range(99) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
    "a list": "{{ [0] * 1000000000 }}",
    "a centered text": "{{ 'x' | center(4000000000) }}",
}
ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''|attr('__class__')|attr('__base__')|attr('__subclasses__')() }}",
    "{{ cycler.__init__.__globals__.os.mkdir('CANARY') }}",
    "{{ joiner.__init__.__globals__.__builtins__.__import__('os').mkdir('CANARY') }}",
    "{{ lipsum.__globals__['os'].popen('mkdir CANARY').read() }}",
    "{{ self._TemplateReference__context.environment.globals.lipsum.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['os'].mkdir('CANARY') }}",
    "{{ strftime_now.__globals__['os'].mkdir('CANARY') }}",
    "{{ (messages|map('tojson')).gi_frame.f_back.f_globals }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}",
    "{{ '%c' % 0 }}{{ ('{0.__class__}'|format)(messages) }}",
    "{% set x = messages.append(messages[0]) %}{{ messages|length }}",
    "{% set x = messages[0].update(content='other') %}{{ messages[0].content }}",
    "{% set x = messages.clear() %}{{ messages|length }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.mkdir('CANARY') }}",
    "{% extends '/etc/passwd' %}",
)
CHAT = [{"role": role, "content": text} for role, text in (("user", "why?"), ("assistant", "so."), ("user", "b"))]


@pytest.fixture
def in_half_a_second(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A limit of processor time that a test can wait for."""
    monkeypatch.setattr(capped_programs, "MAX_CPU_S", 0.5)
    capped_programs._child.stop()
    yield
    capped_programs._child.stop()


@pytest.mark.usefixtures("in_half_a_second")
@pytest.mark.parametrize("case", TIME)
def test_a_template_without_end_is_stopped(case: str) -> None:
    with pytest.raises(ProgramError, match="ran for more than"):
        rendered(TIME[case], [*CHAT, CHAT[1]], {})


@pytest.mark.parametrize("case", MEMORY)
def test_a_template_gets_no_more_memory_than_its_limit(case: str) -> None:
    with pytest.raises(ProgramError, match="MB of memory|characters"):
        rendered(MEMORY[case], CHAT, {})
    assert rendered("{{ messages[0].content }}", CHAT, {}) == "why?"  # the next one gets a new process


@pytest.mark.parametrize("template", ESCAPES)
def test_a_template_that_reaches_outside_gets_nothing_and_changes_nothing(template: str, tmp_path: Path) -> None:
    try:
        written = rendered(template.replace("CANARY", str(tmp_path / "canary")), CHAT, {})
    except ProgramError:
        written = ""
    assert not (tmp_path / "canary").exists()
    for leak in ("<class", "<module", "__builtins__", "root:", "other", "globals"):
        assert leak not in written
    assert rendered("{{ messages|length }} {{ messages[0].content }}", CHAT, {}) == "3 why?"


def test_a_template_that_writes_too_much_is_refused() -> None:
    with pytest.raises(ProgramError, match="it writes 2,000,000 characters"):
        rendered("{{ 'x' * 2000000 }}", CHAT, {})


def test_a_templates_own_error_is_told_from_a_damaged_template() -> None:
    with pytest.raises(RefusedError, match="no system"):
        rendered("{{ raise_exception('no system') }}", CHAT, {})
    for damaged in ("{{ 1 / 0 }}", "{{ messages[0].content + 1 }}", "{{ cycler() }}"):
        with pytest.raises(ProgramError) as caught:
            rendered(damaged, CHAT, {})
        assert not isinstance(caught.value, RefusedError)


def test_a_forked_process_starts_a_child_of_its_own() -> None:
    assert rendered("{{ messages | length }}", CHAT, {}) == "3"
    forked = os.fork()
    if not forked:
        try:
            os._exit(0 if rendered("{{ messages | length }}", CHAT, {}) == "3" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert rendered("{{ messages[0].role }}", CHAT, {}) == "user"


@pytest.mark.parametrize("family", WORDS)
def test_it_writes_what_transformers_writes(family: str, tmp_path: Path) -> None:
    WORDS[family].write(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    messages = turns("Who \ud83d\ude00 had it?", 'The <b>group</b> \u2028 "a"', "Why?")
    theirs = tokenizer.apply_chat_template(
        [message.as_turn() for message in messages], tokenize=False, add_generation_prompt=True, **TEMPLATE_VARIABLES
    )
    assert render(tokenizer, messages, add_generation_prompt=True) == theirs


@pytest.mark.usefixtures("in_half_a_second")
def test_the_template_of_any_model_folder_is_refused_by_name(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "base", template=ENDLESS + CHATML)
    with pytest.raises(ModelError) as caught:
        render(load_tokenizer(folder), turns("a"))
    assert str(folder) in caught.value.headline
    assert caught.value.cause.startswith("it ran for more than")
    assert "chat_template" in caught.value.hint
    assert AutoTokenizer.from_pretrained(folder).chat_template == ENDLESS + CHATML


@pytest.mark.usefixtures("in_half_a_second")
@pytest.mark.parametrize("pattern", ["((([a-z0-9._])+)+)+!", "(a|aa)*!", "(.*)*x{5}"])
def test_a_pattern_that_backtracks_for_ever_is_stopped(pattern: str) -> None:
    with pytest.raises(ProgramError, match="ran for more than"):
        check_patterns([pattern], ["model.layers.0.self_attn.q_proj" + "a" * 40, "a" * 60])


@pytest.mark.parametrize("pattern", ["(", "a{99999999999999999999}", "(" * 5000])
def test_a_damaged_pattern_is_named(pattern: str) -> None:
    with pytest.raises(ProgramError, match="no regular expression|RecursionError|memory"):
        check_patterns([pattern], ["model"])


def test_good_patterns_pass() -> None:
    check_patterns([r".*\.(q|k|v)_proj", "layers.[0-9]+"], ["model.layers.0.self_attn.q_proj"] * 1000)
