"""TRL on the same model, adapter, workload and count of tokens as benchmarks/gpu.py times us on."""

from __future__ import annotations

import statistics
import tempfile
import time

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SETTINGS = {
    "trl_best_nogc": "Liger, no checkpointing",
    "trl_best": "Liger, checkpointing",
    "trl_nogc": "no checkpointing",
}


def tokenizer():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def measure_peer(shape: str, workload: str, name: str, warm_up: int, measured: int, device: str = "cuda:0") -> dict:
    """Time TRL: "best" with Liger's kernels and a fused optimizer, "nogc" without activation checkpointing."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from shapes import make_base, pairs, sequences
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    gpu = device.startswith("cuda")
    model = make_base(shape, device, torch.bfloat16 if gpu else torch.float32)
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    steps = warm_up + measured
    common = {
        "output_dir": tempfile.mkdtemp(), "max_steps": steps, "learning_rate": 2e-4, "optim": "adamw_torch_fused",
        "bf16": gpu, "use_cpu": not gpu, "logging_steps": 1, "report_to": "none", "save_strategy": "no",
        "lr_scheduler_type": "constant", "gradient_checkpointing": "nogc" not in name, "seed": 0, "remove_unused_columns": False,
    }  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", target_modules=TARGETS)
    if workload == "dpo":
        drawn = pairs(64 * 4)
        # The trainer tokenizes its data set; the timed tokens replace that data below.
        text = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}] * len(drawn))
        data = Dataset.from_list(
            [{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": worse} for prompt, chosen, worse in drawn]
        )
        config = DPOConfig(
            **common, per_device_train_batch_size=8, gradient_accumulation_steps=8, max_length=None
        )  # fmt: skip
        per_step = sum(2 * len(prompt) + len(chosen) + len(worse) for prompt, chosen, worse in drawn) / 4
        trainer = DPOTrainer(
            model=model, args=config, train_dataset=text, processing_class=tokenizer(), peft_config=lora
        )
        trainer.train_dataset = data
    else:
        size = {"packed2k": 8, "chat": 128}[workload]
        drawn = sequences(workload, size * 4)
        data = Dataset.from_list(
            [{"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]} for ids, prompt in drawn]
        )
        packed = workload == "chat"
        config = SFTConfig(
            **common, per_device_train_batch_size=8 if packed else 4, gradient_accumulation_steps=2, max_length=2048,
            packing=packed, use_liger_kernel=gpu, dataset_kwargs={} if packed else {"skip_prepare_dataset": True},
        )  # fmt: skip
        per_step = None
        trainer = SFTTrainer(
            model=model, args=config, train_dataset=data, processing_class=tokenizer(), peft_config=lora
        )
    seconds, tokens, losses = [], [], []

    class Watch(TrainerCallback):
        def on_step_begin(self, *_, **__):
            torch.cuda.synchronize() if gpu else None
            self.began = time.perf_counter()

        def on_step_end(self, *_, **__):
            torch.cuda.synchronize() if gpu else None
            seconds.append(time.perf_counter() - self.began)

        def on_log(self, *_, logs=None, **__):
            if "loss" in (logs or {}):
                losses.append(round(float(logs["loss"]), 4))

    trainer.add_callback(Watch())
    drawn_batches = trainer.get_batch_samples

    def counted(iterator, number, *rest, **more):
        batches, items = drawn_batches(iterator, number, *rest, **more)
        if per_step is not None:
            tokens.append(per_step)
        else:  # position ids of packed rows have no padding; a mask says where there is some
            tokens.append(sum(int(batch.get("attention_mask", batch["input_ids"] * 0 + 1).sum()) for batch in batches))
        return batches, items

    trainer.get_batch_samples = counted
    trainer.train()
    rates = [count / took for count, took in zip(tokens[warm_up:], seconds[warm_up:], strict=False)]
    return {
        "settings": SETTINGS[name],
        "tok_s": round(statistics.median(rates)),
        "peak_reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2) if gpu else 0,
        "losses": [*losses[:3], *losses[-2:]],
    }
