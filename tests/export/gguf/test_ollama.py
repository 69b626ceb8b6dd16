"""The folder for Ollama, and its templates against what Go's own text/template rendered."""

from __future__ import annotations

import json

import pytest

from support import ROOT
from support.exported import digest_of, make_exportable, random_conversations
from support.families import SYSTEM, WORDS, turns
from support.gguf_folder import write_gguf
from support.tiny import make_tokenizer
from tunewright.errors import ModelError
from tunewright.export.comparison import short_conversations
from tunewright.export.gguf.llama_runner import LlamaRunner
from tunewright.export.gguf.ollama import TurnPosition, go_template, modelfile, quote, render_go, shape_of_template
from tunewright.export.gguf.vocabulary import adds_bos
from tunewright.models.chat_template import encode_prompt, load_tokenizer, render

RECORDED = json.loads((ROOT / "benchmarks" / "results" / "ollama_template.json").read_text(encoding="utf-8"))[
    "templates"
]


@pytest.fixture(scope="module", params=WORDS)
def kind(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("words") / request.param
    folder.mkdir()
    WORDS[request.param].write(folder)
    return request.param, load_tokenizer(folder)


def test_our_renderer_gives_what_go_gave(kind):
    name, tokenizer = kind
    template, shape = go_template(tokenizer, adds_bos(tokenizer))
    assert (
        digest_of([render_go(template, messages) for messages in random_conversations()]) == RECORDED[name]["go_digest"]
    )
    assert sorted(shape.trimmed) == RECORDED[name]["trimmed_roles"]


def test_the_first_token_is_written_by_ollama_or_by_the_template_never_by_both(kind):
    _, tokenizer = kind
    bos = tokenizer.bos_token or ""
    prompts = [render(tokenizer, messages, True) for messages in short_conversations()]
    if not bos or not all(prompt.startswith(bos) for prompt in prompts):
        pytest.skip("its template writes no first token")
    template, _ = go_template(tokenizer, True)
    assert [bos + render_go(template, messages) for messages in short_conversations()] == prompts


def _adding_bos(folder, template):
    """A tokenizer that puts <s> before a text, as Llama's does."""
    make_tokenizer(folder, template, ("<unk>", "<s>", "</s>"), "<s>", "</s>", None)
    state = json.loads((folder / "tokenizer.json").read_text())
    sequence = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    state["post_processor"] = {
        "type": "TemplateProcessing",
        "single": sequence,
        "pair": [*sequence, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(state))
    return load_tokenizer(folder)


_LINES = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}assistant:"


@pytest.mark.parametrize(("head", "added"), [("{{ bos_token }}", True), ("", False)])
def test_llama_cpp_adds_the_first_token_only_where_training_had_it(head, added, tmp_path):
    folder = make_exportable("llama2", tmp_path / "model")
    tokenizer = _adding_bos(folder, head + _LINES)
    assert adds_bos(tokenizer) is added
    write_gguf(folder, tmp_path / "model.gguf", "f16")
    with LlamaRunner(tmp_path / "model.gguf") as runner:
        for messages in short_conversations():
            assert runner.prompt_ids(messages) == encode_prompt(tokenizer, messages)
            assert (runner.prompt_ids(messages)[0] == 1) is added
    assert '"<s>' not in modelfile(tokenizer, 2048, added)


def test_the_modelfile_is_one_that_ollama_reads(tmp_path):
    folder = make_exportable("smollm2", tmp_path / "model")
    content = modelfile(load_tokenizer(folder), 2048, False, 'Answer "x".\n\nBriefly.')
    assert '\nSYSTEM """Answer "x".\n\nBriefly."""\n' in content
    assert "SYSTEM" not in modelfile(load_tokenizer(folder), 2048, False)
    lines = content.splitlines()
    assert lines[0] == "FROM ./model.gguf"
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert {"PARAMETER temperature 0", "PARAMETER repeat_penalty 1", "PARAMETER num_ctx 2048"} <= set(lines)
    template = next(line for line in lines if line.startswith("TEMPLATE")).removeprefix('TEMPLATE """')[:-3]
    messages = (SYSTEM, *turns("Who had it?", "The group.", "Which?"))
    assert render_go(template, messages) == render(load_tokenizer(folder), messages, True)


def test_the_file_names_the_roles_that_the_template_trims(tmp_path):
    WORDS["gemma2"].write(tmp_path)
    assert modelfile(load_tokenizer(tmp_path), 8192, False).startswith("# Trained without white space")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ loop.index ~ m['role'] ~ m['content'] }}{% endfor %}", "question's position"),
        ("{% for m in messages %}{{ m['role'] ~ (m['content'] | upper) }}{% endfor %}", "changes their text"),
        ("{{ messages[-1]['content'] }}", "leaves out turns"),
        (
            "{% for m in messages %}{{ m['role'] ~ (m['content'] | replace('risk', 'r')) }}{% endfor %}",
            "its own way",
        ),
        ("{% for m in messages %}{{ m['content'] ~ m['role'] ~ (m['content'] | length) }}{% endfor %}", "position|own"),
    ],
)
def test_what_ollamas_language_cannot_say_is_refused_with_the_reason(template, reason, tmp_path):
    make_tokenizer(tmp_path, template)
    with pytest.raises(ModelError, match="to an Ollama template") as caught:
        go_template(load_tokenizer(tmp_path), False)
    assert any(part in caught.value.cause for part in reason.split("|"))
    assert caught.value.hint.endswith("tunewright export DIR --to gguf")


def test_a_system_prompt_that_would_end_its_own_text_is_refused(tmp_path):
    WORDS["smollm2"].write(tmp_path)
    with pytest.raises(ModelError, match="system prompt cannot be written in a Modelfile"):
        modelfile(load_tokenizer(tmp_path), 8192, False, 'Say """ x.')


def test_the_system_text_is_where_the_template_puts_it(tmp_path):
    WORDS["mistral0.3"].write(tmp_path)
    before = shape_of_template(load_tokenizer(tmp_path)).before_user
    assert before[TurnPosition(False, True, True)] == ("</s>[INST] ", "\n\n")
    assert before[TurnPosition(True, False, True)] == ("<s>[INST] ",)


def test_neighbors_of_one_role_are_joined_as_ollama_joins_them():
    template = '{{ range $i, $_ := .Messages }}{{ if eq .Role "user" }}{{ .Content }}{{ "|" }}{{ end }}{{ end }}'
    user = turns("a")[0]
    assert render_go(template, [user, user.model_copy(update={"content": "b"})]) == "a\n\nb|"


@pytest.mark.parametrize(
    "template", ["{{ .Tools }}", "{{ if eq .Role }}x{{ end }}", "{{ if true }}x", "{{ template }}"]
)
def test_what_exported_templates_never_have_is_an_error(template):
    with pytest.raises(ValueError, match="unknown|do not close"):
        render_go(template, turns("a"))


@pytest.mark.parametrize("text", ['a"b\\n', "\n\t\r", "naïve 東京 🦙", "}} {{ .Content }}"])
def test_literals_come_back_as_they_were(text):
    assert quote(text).isascii()
    assert render_go("{{ " + quote(text) + " }}", ()) == text
