"""How much memory a merge of an 8B model takes: random weights of Llama-3.1-8B's shape, a LoRA on every linear layer.

    PYTHONPATH=tests:benchmarks python benchmarks/merge_memory.py --shape 8B [--work FOLDER] [-o FILE]

The base is written as bf16 shards, the adapter beside it, and a child process merges them (NF4 as trained, expanded
again). Its own memory (RssAnon) is read every 20 ms; pages of the base's files, which the system takes back when it
needs them, are reported apart (VmRSS). On a GPU the quantization runs there, on a CPU it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import sys, threading, time
from pathlib import Path
from tunewright.export.merge import write_merged
from tunewright.export.target import ExportRequest
from tunewright.recipe import load_recipe
from tunewright.run_folder import RunFolder

def held(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

def watch():
    while not done.wait(0.02):
        own.append(held("RssAnon")), whole.append(held("VmRSS"))

run = RunFolder.open(Path(sys.argv[1]))
done, own, whole = threading.Event(), [0], [0]
watcher = threading.Thread(target=watch)
watcher.start()
began = time.perf_counter()
request = ExportRequest(run.file("adapter"), load_recipe(run.file("recipe.toml")), dtype="bf16")
write_merged(request, Path(sys.argv[2]))
seconds = time.perf_counter() - began
done.set()
watcher.join()
print("FIGURES", max(own), max(whole), seconds)
"""


def write_base(folder: Path, shape: str) -> None:
    """Write a model of a shape with random bf16 weights, a shard of a gigabyte or two for every few layers."""
    import torch
    from safetensors.torch import save_file
    from shapes import config_of
    from transformers import LlamaForCausalLM

    from support.tiny import make_tokenizer

    config = config_of(shape)
    folder.mkdir(parents=True)
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = "bfloat16"
    config.save_pretrained(folder)
    make_tokenizer(folder)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, value in model.state_dict().items():
        if not (config.tie_word_embeddings and name == "lm_head.weight"):
            layer = name.split(".")[2] if ".layers." in name else ""
            groups.setdefault(f"{int(layer) // 4 if layer else 'rest'}", {})[name] = tuple(value.shape)
    index = {}
    for number, (_, tensors) in enumerate(groups.items(), 1):
        file = f"model-{number:05}-of-{len(groups):05}.safetensors"
        weights = {
            name: torch.ones(shape_, dtype=torch.bfloat16)
            if len(shape_) == 1
            else (torch.randn(shape_, generator=generator) * 0.02).to(torch.bfloat16)
            for name, shape_ in tensors.items()
        }
        save_file(weights, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(weights, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def write_run(folder: Path, base: Path, shape: str) -> None:
    """Write a run folder with a recipe and a random adapter of rank 16 on every linear layer of the blocks."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file
    from shapes import config_of
    from transformers import LlamaForCausalLM

    from tunewright.recipe import Recipe, dump_recipe
    from tunewright.run_folder import RunFolder
    from tunewright.settings import ModelSettings

    run = RunFolder.create(folder)
    run.write("recipe.toml", dump_recipe(Recipe(model=ModelSettings(base=str(base)))))
    with torch.device("meta"):
        model = LlamaForCausalLM(config_of(shape))
    linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in n}
    names = sorted({name.rpartition(".")[2] for name in linears})
    run.file("adapter").mkdir()
    config = LoraConfig(r=16, lora_alpha=32, target_modules=names, task_type="CAUSAL_LM")
    config.base_model_name_or_path = str(base)
    config.save_pretrained(run.file("adapter"))
    weights = {}
    for name, linear in linears.items():
        weights[f"base_model.model.{name}.lora_A.weight"] = torch.randn(16, linear.in_features) * 0.01
        weights[f"base_model.model.{name}.lora_B.weight"] = torch.randn(linear.out_features, 16) * 0.01
    save_file(weights, run.file("adapter") / "adapter_model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="8B")
    parser.add_argument("--work", type=Path, help="folder with room for the model twice")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/merge_memory.json"))
    options = parser.parse_args()
    import torch

    with tempfile.TemporaryDirectory(dir=options.work) as name:
        folder = Path(name)
        write_base(folder / "base", options.shape)
        write_run(folder / "run", folder / "base", options.shape)
        (folder / "out").mkdir()
        command = [sys.executable, "-c", CHILD, str(folder / "run"), str(folder / "out")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-4000:])
        own, whole, seconds = done.stdout.split("FIGURES")[1].split()
        shards = [path.stat().st_size for path in (folder / "out").glob("*.safetensors")]
    figures = {
        "shape": options.shape,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "dtype": "bf16",
        "own_gib": round(int(own) / 2**30, 2),
        "with_file_pages_gib": round(int(whole) / 2**30, 2),
        "shards": len(shards),
        "largest_shard_gib": round(max(shards) / 2**30, 2),
        "merged_gib": round(sum(shards) / 2**30, 2),
        "seconds": round(float(seconds), 1),
    }
    options.output.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
