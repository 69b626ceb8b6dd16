"""The card: only what the records say, and no text of a document or recipe that is more than text."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from support import finished_run, pushable
from tunewright.commands.push import read_card_records
from tunewright.export.base_model import read_base
from tunewright.hub.markdown import fence, plain
from tunewright.hub.model_card import Pushed, data_card, model_card
from tunewright.recipe import Recipe, load_recipe
from tunewright.settings import EvaluationSettings, ModelSettings, TeacherSettings, TrainingSettings

HOSTILE = (
    "---\nlicense: mit\n---",
    "# Verdict: SHIP",
    "1. one\n2. two",
    "[click](https://evil.example/?q=1) ![x](http://evil.example/x.png)",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "a | b | c\n|---|---|",
    "``` \n~~~\n# out of the fence",
    "{{ 7*7 }} {% raw %} ${HOME}",
    "*bold* _it_ `code` ~~gone~~ \\ &amp; &#35;",
    "www.evil.example http://evil.example someone@evil.example",
    "\u202eright to left\u0000\u0007\u2028line",
    "=====\n-----\n+ x\n- y\n> z",
    "quote \" ' : & * ! % @ {} [] # yaml",
    "$$\\href{javascript:alert(1)}{x}$$",
)


def parse(card):
    """Return front matter and the kinds of the body's tokens, as a reader of Markdown with tables sees them."""
    _, front, body = card.split("---\n", 2)
    parser = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])
    kinds = []
    for token in parser.parse(body):
        children = [child.type for child in token.children or [] if child.type not in ("text", "softbreak")]
        kinds += [token.type, *children]
    return yaml.safe_load(front), kinds


def card_of(run, pushed=None):
    recipe = load_recipe(run.file("recipe.toml"))
    verdict = run.read_json("verdict.json")
    return model_card(read_card_records(run), recipe, verdict, pushed or Pushed("me/my-model", "adapter", True))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return pushable.write(tmp_path_factory.mktemp("card") / "run")


def test_the_front_matter_is_what_the_hub_reads(run):
    front, _ = parse(card_of(run))
    assert front["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert front["base_model_relation"] == "adapter"
    assert front["library_name"] == "peft"
    assert front["license"] == "apache-2.0"
    assert set(front["tags"]) == {"tunewright", "lora", "sft", "verdict-use-rag"}
    assert "datasets" not in front
    verdict = run.read_json("verdict.json")
    tuned = next(arm for arm in verdict["results"]["arms"] if arm["arm"] == "tuned")
    metrics = [m for result in front["model-index"][0]["results"] for m in result["metrics"]]
    assert [metric["value"] for metric in metrics] == [round(tuned["primary"]["mean"], 4)]


def test_every_arm_has_its_interval_and_the_verdict_its_own_words(run):
    card = card_of(run)
    verdict = run.read_json("verdict.json")
    for arm in verdict["results"]["arms"]:
        p = arm["primary"]
        assert f"| {p['mean']:.2f} ({p['low']:.2f} to {p['high']:.2f}) |" in card
    for sentence in (*verdict["why"], *verdict["not_measured"]):
        assert f"- {plain(sentence)}\n" in card
    assert "## Verdict: USE RAG" in card
    for words in (
        "answer-first | 1",
        "refusal | 1",
        "own | 1",
        "18 document(s) were trained on, 6 were held out",
        "near duplicate | 11",
    ):
        assert words in card
    assert "copy of it in 4 bit" in card


@pytest.mark.parametrize(
    "quality, name",
    [
        ({"base": 0.9, "few-shot": 0.9, "similar-shot": 0.9, "rag": 0.9, "tuned": 0.1, "tuned+rag": 0.2}, "WORSE"),
        (
            {"base": 0.3, "few-shot": 0.3, "similar-shot": 0.3, "rag": 0.3, "tuned": 0.35, "tuned+rag": 0.3},
            "NOT PROVEN",
        ),
        ({"base": 0.1, "few-shot": 0.1, "similar-shot": 0.1, "rag": 0.1, "tuned": 0.9, "tuned+rag": 0.9}, "SHIP"),
    ],
)
def test_a_card_never_flatters(tmp_path, quality, name):
    made = pushable.write(tmp_path / "run", quality=quality)
    assert made.read_json("verdict.json")["name"] == name
    front, _ = parse(card_of(made))
    assert f"## Verdict: {name}\n" in card_of(made)
    assert f"verdict-{name.lower().replace(' ', '-')}" in front["tags"]


def test_hostile_titles_and_prompts_change_no_sign_of_the_card(tmp_path):
    def made(name, titles, prompt):
        docs = [
            d.model_copy(update={"title": t, "metadata": {"license": t}})
            for d, t in zip(finished_run.documents(len(titles)), titles, strict=True)
        ]
        return pushable.write(tmp_path / name, Recipe(system_prompt=prompt), docs)

    harmless = [f"Title {number}" for number in range(len(HOSTILE))]
    expected = parse(card_of(made("harmless", harmless, "Answer.")))
    hostile = parse(card_of(made("hostile", HOSTILE, "\n".join(HOSTILE))))
    assert hostile == expected


@given(st.text(st.one_of(st.sampled_from("#*_`[]()<>!|\\-+.12 a:/&;\n\t~=\"'@$"), st.characters()), max_size=40))
def test_any_text_stays_text(text):
    shown = plain(text)
    assert "\n" not in shown
    tokens = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .parse(f"| a |\n|---|\n| {shown} |\n\n- {shown}\n\n{shown}\n")
    )
    inline = [child.type for token in tokens for child in token.children or []]
    assert set(inline) <= {"text"}
    kinds = [t.type for t in tokens]
    assert kinds.count("bullet_list_open") == 1
    assert not {
        "heading_open",
        "ordered_list_open",
        "hr",
        "html_block",
        "fence",
        "code_block",
        "blockquote_open",
    } & set(kinds)


@given(st.text(alphabet="`~ \n\rab#", max_size=60))
def test_any_text_stays_in_its_fence(text):
    tokens = MarkdownIt("commonmark").parse(f"before\n\n{fence(text)}\n\nafter\n")
    assert [t.type for t in tokens if t.type == "fence" or t.type.endswith("_open")] == [
        "paragraph_open",
        "fence",
        "paragraph_open",
    ]


def test_no_path_of_this_machine_and_no_address_is_in_a_card(tmp_path):
    base = tmp_path / "secret-place" / "my-base"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}")
    recipe = Recipe(
        model=ModelSettings(base=str(base), quantization="none"),
        teacher=TeacherSettings(url="http://teacher.internal:8000/v1", model="big-model", api_key_env="MY_KEY"),
    )
    card = card_of(pushable.write(tmp_path / "run", recipe))
    local = recipe.model_copy(update={"teacher": TeacherSettings(url="http://localhost:8000/v1", model="/home/me/big")})
    assert "/home/me" not in card_of(pushable.write(tmp_path / "other", local))
    front, _ = parse(card)
    assert str(tmp_path) not in card
    assert "secret-place" not in card
    assert "teacher.internal" not in card
    assert "MY_KEY" not in card
    assert "base_model" not in front
    assert front["license"] == "unknown"
    assert "its name on the hub is not recorded" in card
    assert "big-model" in card


@pytest.mark.parametrize(
    "front, license",
    [
        ("license: mit", {"license": "mit"}),
        (
            "license: other\nlicense_name: llama-3\nlicense_link: https://example.org/LICENSE",
            {"license": "other", "license_name": "llama-3", "license_link": "https://example.org/LICENSE"},
        ),
        ("license: |\n  mit\n  tags: [x]", {}),
        ("license: [a, b]", {}),
        ("license: 'a\" b'\nlicense_link: javascript:alert(1)", {}),
        ("a: : :", {}),
    ],
)
def test_the_bases_license_is_read_from_its_card(tmp_path, front, license):
    folder = tmp_path / "models--owner--name" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\n{front}\n---\n# A model\n")
    base = read_base(str(folder))
    assert (base.hub_name, base.license) == ("owner/name", license)


def test_the_documents_licenses_are_listed_or_said_to_be_missing(run, tmp_path):
    assert "Documents: not stated by the author (18 of 18)" in card_of(run)
    docs = [d.model_copy(update={"metadata": {"license": "CC BY 4.0"}}) for d in finished_run.documents()]
    assert "Documents: CC BY 4.0 (18 of 18)" in card_of(pushable.write(tmp_path / "run", docs=docs))


def test_exports_have_their_parity_or_that_it_was_not_measured(run):
    parity = ("likeliest next token: the same at 99 of 100 positions", "a | b")
    merged = card_of(run, Pushed("me/m", "merged", False, parity))
    assert "- likeliest next token: the same at 99 of 100 positions" in merged
    assert parse(merged)[0]["library_name"] == "transformers"
    assert "vllm serve me/m\n" in merged
    gguf = card_of(run, Pushed("me/m", "gguf", False, gguf_files=("model-q4_k_m.gguf",)))
    assert "how equal their answers are was not measured" in gguf
    assert "llama-server -m model-q4_k_m.gguf" in gguf
    assert parse(gguf)[0]["base_model_relation"] == "quantized"


def test_code_has_the_system_prompt_to_the_letter_and_none_where_there_is_none(tmp_path):
    def cards(name, prompt):
        made = pushable.write(tmp_path / name, Recipe(system_prompt=prompt))
        return card_of(made), card_of(made, Pushed("me/m", "gguf", False))

    adapter, gguf = cards("with", "Answer.\n\n  Briefly.")
    assert '{"role": "system", "content": \'Answer.\\n\\n  Briefly.\'}' in adapter
    assert "\nAnswer.\n\n  Briefly.\n" in gguf
    adapter, _ = cards("without", "")
    assert '"system"' not in adapter
    assert "evaluated without a system prompt" in adapter


def test_the_data_card_names_its_files_and_the_rules(run):
    card = data_card(read_card_records(run), load_recipe(run.file("recipe.toml")), "me/m", "me/m-data")
    front, _ = parse(card)
    assert front["configs"] == [{"config_name": "samples", "data_files": "data/train.jsonl"}]
    assert front["license"] == "unknown"
    assert "The exam of that model is not in it" in card


@pytest.mark.parametrize("quantization, added", [("none", ()), ("nf4-double", ()), ("none", ("<|new|>",))])
def test_the_code_for_transformers_and_peft_runs_as_it_is(tmp_path, tiny_model, quantization, added):
    from tunewright.models.loading import attach_adapter, save_adapter
    from tunewright.models.student import student_base, student_tokenizer

    hostile = 'Say "x".\n\\ \' ``` \U0001f600 {braces}'
    recipe = Recipe(
        system_prompt=hostile,
        model=ModelSettings(base=str(tiny_model), quantization=quantization, added_tokens=added),
        training=TrainingSettings(rank=4),
        evaluation=EvaluationSettings(max_new_tokens=3),
    )
    tokenizer = student_tokenizer(recipe)
    model = attach_adapter(
        student_base(recipe, "cpu", tokenizer), recipe.training, 0, tuple(tokenizer.convert_tokens_to_ids(list(added)))
    )
    folder = tmp_path / "me" / "adapter"
    save_adapter(model, folder, "base")
    tokenizer.save_pretrained(folder)
    card = card_of(pushable.write(tmp_path / "run", recipe))
    code = next(t.content for t in MarkdownIt("commonmark").parse(card) if t.type == "fence" and t.info == "python")
    code = code.replace("'me/my-model'", repr(str(folder))).replace(
        f"'path/to/{tiny_model.name}'", repr(str(tiny_model))
    )
    printed = []
    exec(code, {"print": printed.append})
    assert len(printed) == 1
    assert isinstance(printed[0], str)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    assert ("--max-lora-rank 8" in card) is (not added)


def test_a_pushed_gguf_comes_with_no_second_modelfile(run):
    """The one of the export has the template; one without would prompt the model as Ollama guesses."""
    card = card_of(run, Pushed("me/my-model", "gguf", False, gguf_files=("model.gguf",)))
    assert "llama-server -m model.gguf" in card
    assert "Modelfile" not in card
