"""The model card and the data card: the run's records in Markdown, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright.evaluation.recovery import Recovery, recovery_sentences
from tunewright.export.base_model import NOT_STATED, NamedBase, documents_license, read_base
from tunewright.export.receipt import public_name
from tunewright.hub.markdown import Raw, fence, plain, render
from tunewright.models.student import lora_rank, vllm_obstacle
from tunewright.recipe import Recipe
from tunewright.records import OWN, Document, PreferencePair, Sample, SplitEntry
from tunewright.run_folder import RunFile
from tunewright.settings import EMBEDDED, LOCAL, Arm

_QUANTIZED = {
    "nf4-double": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, '
    "bnb_4bit_compute_dtype=torch.bfloat16",
    "nf4": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16',
    "int8": "load_in_8bit=True",
}
_ASK = """\
messages = [
{system}    {{"role": "user", "content": "..."}},
]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs.to(model.device), max_new_tokens={max_new_tokens}, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


@dataclass(frozen=True)
class Usage:
    """The values in the card's code examples.

    Attributes:
        repo: the repository's name on the hub.
        base: the base's name on the hub, or a placeholder.
        quantization: of the base in the evaluation.
        system_prompt: of the evaluation.
        max_new_tokens: of the evaluation.
        rank: vLLM's --max-lora-rank for an adapter; 0 where vLLM does not load it.
        resized: whether the adapter adds tokens to the base's.
        files: names of the pushed GGUF files.
    """

    repo: str
    base: str
    quantization: str
    system_prompt: str
    max_new_tokens: int
    rank: int = 0
    resized: bool = False
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class UsageExample:
    """A code example: its title, its code and the language of the code."""

    title: str
    code: str
    language: str


@dataclass(frozen=True)
class ArtifactKind:
    """A kind of artifact.

    Attributes:
        library: the hub's name of the library that loads it.
        relation: the hub's name of its relation to the base.
        what: the words before the base's name.
        examples: returns its code examples.
    """

    library: str
    relation: str
    what: str
    examples: Callable[[Usage], list[UsageExample]]


def _ask(usage: Usage) -> str:
    text = ascii(usage.system_prompt)  # a Python literal of any prompt
    system = f'    {{"role": "system", "content": {text}}},\n' if usage.system_prompt else ""
    return _ASK.format(system=system, max_new_tokens=usage.max_new_tokens)


def _load(name: str, quantization: str) -> str:
    """Return the call that loads weights as the evaluation did."""
    settings = _QUANTIZED.get(quantization)
    options = [ascii(name), 'dtype="auto"', 'device_map="auto"']
    options += [f"quantization_config=BitsAndBytesConfig({settings})"] if settings else []
    return "AutoModelForCausalLM.from_pretrained(\n" + "".join(f"    {option},\n" for option in options) + ")\n"


def _imports(usage: Usage, *lines: str) -> str:
    quantized = usage.quantization in _QUANTIZED
    names = ["AutoModelForCausalLM", "AutoTokenizer", *(["BitsAndBytesConfig"] if quantized else [])]
    torch = ["import torch"] if "torch." in _QUANTIZED.get(usage.quantization, "") else []
    return "\n".join([*torch, *lines, f"from transformers import {', '.join(names)}"]) + "\n\n"


def _adapter(usage: Usage) -> list[UsageExample]:
    code = _imports(usage, "from peft import PeftModel")
    code += f"tokenizer = AutoTokenizer.from_pretrained({ascii(usage.repo)})\n"
    code += f"base = {_load(usage.base, usage.quantization)}"
    if usage.resized:
        code += "base.resize_token_embeddings(len(tokenizer), mean_resizing=False)\n"
    code += f"model = PeftModel.from_pretrained(base, {ascii(usage.repo)})\n\n{_ask(usage)}"
    examples = [UsageExample("transformers and peft", code, "python")]
    if usage.rank:
        flags = f"--enable-lora --max-lora-rank {usage.rank} --lora-modules tuned={usage.repo}"
        command = f"vllm serve {usage.base} {flags}\n"
        examples.append(UsageExample('vLLM (ask for the model "tuned")', command, "sh"))
    return examples


def _full(usage: Usage) -> list[UsageExample]:
    code = _imports(usage) + f"tokenizer = AutoTokenizer.from_pretrained({ascii(usage.repo)})\n"
    code += f"model = {_load(usage.repo, usage.quantization)}\n{_ask(usage)}"
    return [UsageExample("transformers", code, "python"), UsageExample("vLLM", f"vllm serve {usage.repo}\n", "sh")]


def _gguf(usage: Usage) -> list[UsageExample]:
    file = usage.files[0] if usage.files else "MODEL.gguf"
    server = f"hf download {usage.repo} {file} --local-dir .\nllama-server -m {file} --jinja\n"
    return [UsageExample("llama.cpp", server, "sh")]


KINDS: Mapping[str, ArtifactKind] = {
    "adapter": ArtifactKind("peft", "adapter", "an adapter for", _adapter),
    "full": ArtifactKind("transformers", "finetune", "all weights, trained further, of", _full),
    "merged": ArtifactKind("transformers", "finetune", "an adapter merged into", _full),
    "gguf": ArtifactKind("gguf", "quantized", "an adapter merged into, and converted to GGUF,", _gguf),
}


_NUM_TITLES = 10  # documents that are named; the others are counted
_TITLE_LENGTH = 160  # characters
_ADAPTER_KIND = "adapter"
_NOT_MEASURED = (
    "bias, safety, and answers about anything outside its documents",
    "languages other than that of the documents",
)
Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Pushed:
    """What is pushed.

    Attributes:
        repo: the repository.
        kind: a key of KINDS.
        is_evaluated: whether these are the very files that were evaluated.
        parity: the results of the comparison with the evaluated model, for other files.
        gguf_files: names of the pushed GGUF files.
        data_repo: the repository of the training set; empty where it is not pushed.
    """

    repo: str
    kind: str
    is_evaluated: bool
    parity: tuple[str, ...] = ()
    gguf_files: tuple[str, ...] = ()
    data_repo: str = ""


@dataclass(frozen=True)
class CardRecords:
    """The run's records that a card is written from.

    Attributes:
        documents: all documents.
        split: the side of each document.
        samples: what was trained on.
        pairs: the preference pairs that were trained on.
        curation: the summary of the stage curate.
        digests: of the exam, the training set and the trained weights, by their names in the card.
    """

    documents: Sequence[Document] = ()
    split: Sequence[SplitEntry] = ()
    samples: Sequence[Sample] = ()
    pairs: Sequence[PreferencePair] = ()
    curation: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


def model_card(records: CardRecords, recipe: Recipe, verdict: Mapping[str, Any], pushed: Pushed) -> str:
    """Return the card's text, front matter first.

    Args:
        records: the run's.
        recipe: the run's.
        verdict: the content of verdict.json.
        pushed: what is pushed, and where.
    """
    base = read_base(recipe.model.base, recipe.folder)
    split = {entry.document: entry.side for entry in records.split}
    learned = [document for document in records.documents if split.get(document.id, "train") == "train"]
    samples, pairs = records.samples, records.pairs
    view = {
        "front": Raw(front_matter(base, verdict, pushed, samples, pairs)),
        "pushed": pushed,
        "what": KINDS[pushed.kind].what,
        "base": base,
        "link": Raw(f"[{base.hub_name}](https://huggingface.co/{base.hub_name})") if base.hub_name else base.name,
        "data_link": Raw(f"[{pushed.data_repo}](https://huggingface.co/datasets/{pushed.data_repo})"),
        "verdict": verdict,
        "learned": learned,
        "titles": [plain(document.title or "(no title)", _TITLE_LENGTH) for document in learned[:_NUM_TITLES]],
        "num_exam": sum(side == "exam" for side in split.values()),
        "tasks": Counter(sample.task for sample in samples).most_common(),
        "origins": Counter(pair.origin for pair in pairs).most_common(),
        "checks": _checks(records, recipe),
        "rejected": sorted(records.curation.get("rejected", {}).items(), key=lambda item: -item[1]),
        "settings": _settings(recipe, base),
        "exam": _exam(verdict),
        "not_measured": [*verdict["not_measured"], *([base.note] if base.note else []), *_NOT_MEASURED],
        "examples": _examples(recipe, base, pushed),
        "system_prompt": fence(recipe.system_prompt, "text") if recipe.system_prompt else "",
        "licenses": documents_license(learned),
        "not_stated": NOT_STATED,
        "quantization": recipe.model.quantization,
        "digests": [
            (f"verdict rule, version {verdict['rule']['version']}", str(verdict["rule_digest"])),
            *records.digests.items(),
        ],
    }
    return render("card.md", view)


def data_card(records: CardRecords, recipe: Recipe, repo: str, data_repo: str) -> str:
    """Return the card of a pushed training set."""
    from huggingface_hub import DatasetCardData

    samples, pairs = records.samples, records.pairs
    splits = [("samples", RunFile.TRAIN, samples), ("pairs", RunFile.PAIRS, pairs)]
    data = DatasetCardData(
        license="unknown",
        tags=["tunewright"],
        configs=[{"config_name": c, "data_files": f"data/{f}"} for c, f, rows in splits if rows],
    )
    view = {
        "front": Raw(data.to_yaml()),
        "name": data_repo.rpartition("/")[2],
        "repo": repo,
        "num_documents": len(records.documents),
        "tasks": Counter(sample.task for sample in samples).most_common(),
        "origins": Counter(pair.origin for pair in pairs).most_common(),
        "checks": _checks(records, recipe),
        "teacher": _teacher(recipe),
        "licenses": documents_license(records.documents),
    }
    return render("data_card.md", view)


def front_matter(
    base: NamedBase,
    verdict: Mapping[str, Any],
    pushed: Pushed,
    samples: Sequence[Sample],
    pairs: Sequence[PreferencePair],
) -> str:
    """Return the YAML that the hub reads; no free text of documents or recipe enters it."""
    from huggingface_hub import EvalResult, ModelCardData

    learned = ["sft"] * bool(samples) + ["dpo"] * bool(pairs)
    slug = "verdict-" + str(verdict["name"]).lower().replace(" ", "-")
    figures = [
        EvalResult(
            task_type="text-generation",
            dataset_type="sealed-exam",
            dataset_name="Sealed exam on the documents (not published)",
            dataset_revision=_sealed(verdict),
            metric_type=f"exam-score-{arm['arm'].replace('+', '-with-')}",
            metric_name=f"Exam score, {arm['arm']} ({_bounds(arm['primary'])})",
            metric_value=round(arm["primary"]["mean"], 4),
        )
        for arm in verdict["results"]["arms"]
        if arm["arm"] == Arm.TUNED
    ]
    data = ModelCardData(
        base_model=base.hub_name,
        library_name=KINDS[pushed.kind].library,
        pipeline_tag="text-generation",
        license=base.license.get("license", "unknown"),
        license_name=base.license.get("license_name"),
        license_link=base.license.get("license_link"),
        tags=["tunewright", *(["lora"] if pushed.kind == _ADAPTER_KIND else []), *learned, slug],
        datasets=[pushed.data_repo] if pushed.data_repo else None,
        model_name=pushed.repo.rpartition("/")[2],
        eval_results=figures or None,
        base_model_relation=KINDS[pushed.kind].relation if base.hub_name else None,
    )
    return data.to_yaml()


def _sealed(verdict: Mapping[str, Any]) -> str:
    return str(verdict["rule_digest"])[:16]


def _bounds(interval: Mapping[str, Any]) -> str:
    return f"95% interval {interval['low']:.2f} to {interval['high']:.2f}"


def _checks(records: CardRecords, recipe: Recipe) -> list[str]:
    """Return how the samples were verified, a sentence for each check."""
    if not records.samples:
        return []
    curation, own = recipe.curation, sum(sample.task == OWN for sample in records.samples)
    checks = []
    if own < len(records.samples):
        checks.append(f"Evidence had to be in its document: fuzzy score of {curation.evidence_match:g} or more of 100.")
    if own:
        checks.append(
            f"{own:,} are the author's own data; they are based on no document and were not checked against one."
        )
    checks.append(f"Near duplicates left out: Jaccard similarity of {curation.near_duplicate:g} or more.")
    checks.append(f"Personal data and secrets that were detected: {curation.privacy}.")
    if curation.checks:
        checks.append(f"The teacher checked each sample as well: {', '.join(curation.checks)}.")
    figures = records.curation.get("figures", {})
    if "leaks_left" in figures:
        checks.append(
            f"Decontaminated against the exam ({curation.ngram} words in a row and other detectors): "
            f"{figures.get('leaks_removed', 0)} removed, {figures['leaks_left']} found by a second check."
        )
    return checks


def _settings(recipe: Recipe, base: NamedBase) -> Rows:
    """Return the settings of the training, without paths and addresses."""
    training, preference = recipe.training, recipe.preference
    rows = [
        ("base", base.name),
        ("quantization of the base", recipe.model.quantization),
        ("teacher", _teacher(recipe)),
        ("method", training.method),
    ]
    if training.method != "full":
        rows.append(("rank, alpha, dropout", f"{training.rank}, {training.alpha:g}, {training.dropout:g}"))
        rows.append(("layers", ", ".join(training.targets)))
    rows += [
        ("epochs", str(training.epochs)),
        ("learning rate", f"{training.learning_rate:g} ({training.schedule}, {training.optimizer})"),
        ("samples per step", str(training.batch_size)),
        ("longest sample", f"{training.max_tokens:,} tokens"),
        ("seed", str(recipe.seed)),
    ]
    if training.text_share:
        rows.append(("share of raw text", f"{training.text_share:g}"))
    if preference.wanted:
        rows.append(("preference", f"{preference.loss}, beta {preference.beta:g}, {preference.epochs} epoch(s)"))
    return rows


def _teacher(recipe: Recipe) -> str:
    """Return the teacher's name; of a folder only its last part."""
    teacher = recipe.writer
    if teacher.url == EMBEDDED:
        return "SmolLM2-135M-Instruct (embedded)"
    return read_base(teacher.model, recipe.folder).name if teacher.url == LOCAL else public_name(teacher.model)


def _exam(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the exam's tables: a row for each arm, difference and guard."""
    results = verdict["results"]

    def signed(interval: Mapping[str, Any]) -> str:
        return f"{interval['mean']:+.2f} ({interval['low']:+.2f} to {interval['high']:+.2f})"

    def score(interval: Mapping[str, Any] | None) -> str:
        return (
            f"{interval['mean']:.2f} ({interval['low']:.2f} to {interval['high']:.2f})" if interval else "no questions"
        )

    return {
        "num_questions": results["num_questions"],
        "num_documents": results["num_documents"],
        "arms": [
            (arm["arm"], score(arm["primary"]), *(score(arm["rings"].get(ring)) for ring in ("learned", "unseen")))
            for arm in results["arms"]
        ],
        "differences": [
            (f"{d['first']} over {d['second']}", signed(d["interval"]), f"{d['sign_flip_p']:.3f}")
            for d in results["differences"]
        ],
        "guards": [
            (f"{g['measure'].replace('_', ' ')}, {g['first']} over {g['second']}", signed(g["interval"]), _state(g))
            for g in results["guards"]
        ],
        "recovery": recovery_sentences(Recovery.model_validate(results["recovery"])) if results.get("recovery") else [],
        "margin": f"{verdict['rule']['margin']:g}",
        "use": verdict["rule"].get("use", ""),
    }


def _state(guard: Mapping[str, Any]) -> str:
    return str(guard["state"]) if guard.get("decides", True) else "shown, decides nothing"


def _examples(recipe: Recipe, base: NamedBase, pushed: Pushed) -> list[tuple[str, Raw]]:
    usage = Usage(
        repo=pushed.repo,
        base=base.hub_name or f"path/to/{base.name}",
        quantization=recipe.model.quantization if pushed.kind == _ADAPTER_KIND else "none",
        system_prompt=recipe.system_prompt,
        max_new_tokens=recipe.evaluation.max_new_tokens,
        rank=0 if vllm_obstacle(recipe) else lora_rank(recipe.training.rank),
        resized=bool(recipe.model.added_tokens),
        files=pushed.gguf_files,
    )
    return [(item.title, fence(item.code, item.language)) for item in KINDS[pushed.kind].examples(usage)]
