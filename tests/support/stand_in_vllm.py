#!/usr/bin/env python
"""Stands in for ``vllm serve``: the same command line and endpoints, transformers behind them; one answer at a time.

Flags, paths, states and replies are those of vLLM 0.32, which benchmarks/vllm_on_cpu.py ran.
"""

from __future__ import annotations

import argparse
import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("base")
    for name in (
        "served-model-name",
        "lora-modules",
        "quantization",
        "host",
        "port",
        "generation-config",
    ):
        parser.add_argument(f"--{name}")
    parser.add_argument("--max-lora-rank", type=int, choices=[1, 8, 16, 32, 64, 128, 256, 320, 512])
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float", "float16", "float32", "half"])
    parser.add_argument("--max-model-len", type=lambda words: None if words in ("auto", "-1") else int(words))
    parser.add_argument("--enable-lora", action="store_true")
    return parser.parse_args()


def load(arguments):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(arguments.base, dtype=getattr(torch, arguments.dtype))
    if arguments.enable_lora and not os.environ.get("WITHHOLD_THE_ADAPTER"):
        adapter = json.loads(arguments.lora_modules)
        assert adapter["name"] == "tuned"
        model = PeftModel.from_pretrained(model, adapter["path"])
    return model.eval(), AutoTokenizer.from_pretrained(arguments.base)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.reply(200, None)
        elif not self.has_key():
            self.reply(401, {"error": "Unauthorized"})
        elif self.path == "/v1/models":
            served = {"id": ARGUMENTS.served_model_name, "max_model_len": MODEL.config.max_position_embeddings}
            tuned = [{"id": "tuned", "max_model_len": None}] if ARGUMENTS.enable_lora else []
            self.reply(200, {"object": "list", "data": [served, *tuned]})
        else:
            self.reply(404, {"detail": "Not Found"})

    def has_key(self):
        return self.headers["Authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}"

    def reply(self, status, content):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode() if content else b"")

    def do_POST(self):
        import torch

        from tunewright.models.generation import stream

        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.has_key():
            self.reply(401, {"error": "Unauthorized"})
            return
        if body["model"] not in ("tuned", ARGUMENTS.served_model_name):
            error = {"message": f"The model `{body['model']}` does not exist.", "type": "NotFoundError", "code": 404}
            self.reply(404, {"error": error})
            return
        self.send_response(200)
        self.end_headers()
        if self.path == "/v1/chat/completions":
            self.chat(body)
            return
        with torch.inference_mode():
            pieces = list(stream(MODEL, TOKENIZER, body["prompt"], body["max_tokens"], body["stop_token_ids"]))
        for piece in pieces:
            self.event({"choices": [{"index": 0, "text": piece, "finish_reason": None}]})
        finish = "length" if len(pieces) == body["max_tokens"] else "stop"
        self.event({"choices": [{"index": 0, "text": "", "finish_reason": finish}]})
        written = len(pieces) + (finish == "stop")  # vLLM counts the end token
        self.event({"choices": [], "usage": {"completion_tokens": written}})
        self.wfile.write(b"data: [DONE]\n\n")

    def chat(self, body):
        """Answer a teacher's call as a whole."""
        import torch

        from tunewright.models.generation import stream

        prompt = TOKENIZER.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True, **body["chat_template_kwargs"]
        )
        ids = TOKENIZER(prompt, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            text = "".join(stream(MODEL, TOKENIZER, ids, body["max_tokens"], [TOKENIZER.eos_token_id]))
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 5}
        self.wfile.write(json.dumps({"choices": [choice], "usage": usage}).encode())

    def event(self, content):
        self.wfile.write(b"data: " + json.dumps(content).encode() + b"\n\n")

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    ARGUMENTS = options()
    MODEL, TOKENIZER = load(ARGUMENTS)
    HTTPServer((ARGUMENTS.host, int(ARGUMENTS.port)), Handler).serve_forever()
