"""How near a GGUF of each type is to the weights that it was made of: the embedded base, in fp32 and as NF4 trains it.

    python benchmarks/k_quants.py [--types TYPE ...] [-o FILE]

Each file is written as an export writes it, once with an importance matrix and once without. Its values are read back
into the model of transformers: no runtime of another program is in the figures. Perplexity, divergence and the
likeliest token are of positions of this repository's documentation; the importance matrix is of other pages of it.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import PreTrainedModel

from tunewright.export.gguf.architectures import mapping_of
from tunewright.export.gguf.importance import Importance, importance_of
from tunewright.export.gguf.k_quants import WEIGHED
from tunewright.export.gguf.model import write_model
from tunewright.export.gguf.write import MergedRows
from tunewright.export.merge import Merge, bare_name
from tunewright.models.chat_template import load_tokenizer
from tunewright.models.loading import load_base, quantized_layers
from tunewright.models.source import model_folder, read_config
from tunewright.models.tensors import weight_files

TYPES = ("q4_0", "q4_k_m", "q5_k_m", "q6_k", "q8_0")
LENGTH, NUM_TESTED, NUM_READ = 256, 10, 12  # tokens of a sequence, and sequences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/k_quants.json"))
    parser.add_argument("--types", nargs="+", default=TYPES, help="the rows of other types stay as the file has them")
    options = parser.parse_args()
    before = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else []
    rows = [row for base in ("none", "nf4-double") for row in figures_of(base, options.types)]
    rows = sorted(
        [*rows, *(row for row in before if row["type"] not in options.types)],
        key=lambda row: (row["base"], TYPES.index(row["type"]), row["importance"]),
    )
    options.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def figures_of(base: str, types: Sequence[str]) -> list[dict[str, Any]]:
    """Return the figures of these types for the base in these numbers."""
    folder = model_folder()
    config, tokenizer = read_config(folder), load_tokenizer(folder)
    layers = frozenset(map(bare_name, quantized_layers(folder, base, torch.float32)))
    merge = Merge(folder, weight_files(folder), None, base, layers, torch.float32, 0, "cpu")
    model = load_base(folder, "none", "cpu", torch.float32).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(merge.tensor(name))
    pages = [page.read_text(encoding="utf-8") for page in sorted(Path("docs").glob("*.md"))]
    ids = tokenizer("\n\n".join(pages), add_special_tokens=False)["input_ids"]
    sequences = [ids[start : start + LENGTH] for start in range(0, len(ids) - LENGTH, LENGTH)]
    tested, read = sequences[::4][:NUM_TESTED], sequences[1::4][:NUM_READ]
    importance, expected = importance_of(model, config, read), log_probs(model, tested)
    rows = []
    for dtype in types:
        for weighed in (importance, None) if dtype in WEIGHED else (None,):
            written = read_back(MergedRows(merge), config, tokenizer, dtype, weighed, parameters)
            figures = compared(expected, log_probs(model, tested), torch.tensor(tested))
            rows.append({"base": base, "type": dtype, "importance": weighed is not None, **figures, "tensors": written})
            print(rows[-1], flush=True)
    return rows


def read_back(
    weights: MergedRows,
    config: dict[str, Any],
    tokenizer: Any,
    dtype: str,
    importance: Importance | None,
    parameters: dict[str, torch.nn.Parameter],
) -> dict[str, int]:
    """Write a file, and put its values into the parameters; return how many matrices it has of each type."""
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "model.gguf"
        write_model(weights, config, tokenizer, file, dtype, importance)
        tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
        for name, parameter in parameters.items():
            mapping = mapping_of(name, config)
            if mapping is None or mapping.name not in tensors:
                continue
            tensor = tensors[mapping.name]
            values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).view(parameter.shape)
            with torch.no_grad():
                parameter[list(mapping.order) if mapping.order is not None else slice(None)] = values - mapping.offset
        return dict(Counter(tensor.tensor_type.name for tensor in tensors.values() if len(tensor.shape) > 1))


def log_probs(model: PreTrainedModel, sequences: list[list[int]]) -> torch.Tensor:
    """Return log-probabilities, [sequence, token, vocabulary]."""
    with torch.inference_mode():
        return torch.stack([model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1) for ids in sequences])


def compared(expected: torch.Tensor, ours: torch.Tensor, ids: torch.Tensor) -> dict[str, float]:
    """Return perplexities, the divergence in nats and how often the likeliest token is the same."""
    divergence = (expected.exp() * (expected - ours)).sum(-1)

    def perplexity(values: torch.Tensor) -> float:
        return math.exp(-float(values[:, :-1].gather(-1, ids[:, 1:, None]).mean()))

    return {
        "perplexity_before": round(perplexity(expected), 3),
        "perplexity": round(perplexity(ours), 3),
        "mean_kl_nats": round(float(divergence.mean()), 5),
        "same_likeliest": round(float((expected.argmax(-1) == ours.argmax(-1)).float().mean()), 4),
    }


if __name__ == "__main__":
    main()
