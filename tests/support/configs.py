"""Configurations as people write them for other trainers, by the keys that those document."""

AXOLOTL_QLORA = """\
base_model: mistralai/Mistral-7B-v0.1
model_type: AutoModelForCausalLM
tokenizer_type: AutoTokenizer
trust_remote_code: true

load_in_8bit: false
load_in_4bit: true
bnb_config_kwargs:
  bnb_4bit_quant_type: nf4
  bnb_4bit_use_double_quant: false
strict: false

datasets:
  - path: data/tickets.jsonl
    type: chat_template
    field_messages: messages
    roles_to_train: [assistant]
  - path: json
    data_files: [data/more.jsonl, data/again.json]
    type: alpaca
  - path: tatsu-lab/alpaca
    type: alpaca
    shards: 4
dataset_prepared_path: last_run_prepared
val_set_size: 0.1
output_dir: ./outputs/tickets

adapter: qlora
lora_model_dir:
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
lora_target_modules: [q_proj, v_proj]
peft_use_rslora: true

wandb_project: tickets
wandb_entity:
wandb_api_key: this-is-no-secret-of-mine

gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 2.5
max_steps: 400
optimizer: paged_adamw_8bit
lr_scheduler: cosine
learning_rate: 2e-4
warmup_steps: 10
weight_decay: 0.01
max_grad_norm: 0.3

bf16: auto
tf32: false
gradient_checkpointing: true
flash_attention: true
evals_per_epoch: 4
saves_per_epoch: 1
seed: 7
tokens: ["<severity>", "</severity>"]
special_tokens:
  pad_token: "</s>"
neftune_noise_alpha: 5
plugins:
  - axolotl.integrations.liger.LigerPlugin
frobnicate: 3
"""

AXOLOTL_DPO = """\
base_model: meta-llama/Meta-Llama-3-8B-Instruct
load_in_8bit: true
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_modules: [q_proj, k_proj, v_proj]
rl: dpo
rl_beta: 0.2
datasets:
  - path: pairs/judged.jsonl
    type: chatml.intel
    field_chosen: better
sequence_len: 2048
micro_batch_size: 1
gradient_accumulation_steps: 8
num_epochs: 1
learning_rate: 0.000005
fp16: true
"""

LLAMA_FACTORY_SFT = """\
### model
model_name_or_path: Qwen/Qwen2.5-7B-Instruct
trust_remote_code: true
quantization_bit: 4
quantization_method: bnb
double_quantization: false
flash_attn: fa2

### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 64
lora_target: q_proj,v_proj
use_dora: true
additional_target: embed_tokens

### dataset
dataset: tickets,alpaca_en_demo
dataset_dir: {data}
template: qwen
cutoff_len: 2048
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16

### output
output_dir: saves/qwen/lora/sft
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
report_to: [wandb]
hf_hub_token: this-is-no-secret-of-mine

### eval
val_size: 0.1
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
"""

LLAMA_FACTORY_DPO = """\
{
  "stage": "dpo", "model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct", "finetuning_type": "full",
  "dataset": "judged", "template": "qwen", "pref_beta": 0.1, "pref_loss": "simpo", "quantization_bit": 4,
  "learning_rate": "5e-6", "num_train_epochs": 2, "per_device_train_batch_size": 2, "optim": "adafactor"
}
"""

UNSLOTH = """\
model: unsloth/Qwen2.5-0.5B
data:
  dataset: tatsu-lab/alpaca
  local_dataset: [data/tickets.jsonl]
  format_type: auto
training:
  training_type: lora
  max_seq_length: 2048
  load_in_4bit: true
  num_epochs: 1
  learning_rate: 0.0002
  batch_size: 2
  gradient_accumulation_steps: 4
  warmup_steps: 5
  max_steps: 0
  random_seed: 3407
  packing: false
  gradient_checkpointing: unsloth
lora:
  lora_r: 64
  lora_alpha: 16
  lora_dropout: 0.0
  target_modules: "q_proj,k_proj,v_proj"
  use_rslora: true
  finetune_mlp_modules: true
logging:
  enable_wandb: true
  wandb_token: this-is-no-secret-of-mine
"""

ALL = {
    "axolotl-qlora": AXOLOTL_QLORA,
    "axolotl-dpo": AXOLOTL_DPO,
    "llama-factory-sft": LLAMA_FACTORY_SFT.replace("{data}", "data"),
    "llama-factory-dpo": LLAMA_FACTORY_DPO,
    "unsloth": UNSLOTH,
}
