#!/usr/bin/env python
"""Stands in for ``vllm serve``: the same command line and endpoints, transformers behind them; one answer at a time."""

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
        "max-lora-rank",
        "quantization",
        "dtype",
        "host",
        "port",
        "generation-config",
    ):
        parser.add_argument(f"--{name}")
    parser.add_argument("--enable-lora", action="store_true")
    return parser.parse_args()


def load(arguments):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(arguments.base, dtype=getattr(torch, arguments.dtype))
    if arguments.enable_lora and not os.environ.get("WITHHOLD_THE_ADAPTER"):
        name, _, folder = arguments.lora_modules.partition("=")
        assert name == "tuned"
        model = PeftModel.from_pretrained(model, folder)
    return model.eval(), AutoTokenizer.from_pretrained(arguments.base)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def do_POST(self):
        import torch

        from tunewright.models.generation import stream

        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = body["model"] in ("tuned", ARGUMENTS.served_model_name)
        well = self.headers["Authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}" and known
        self.send_response(200 if well else 401)
        self.end_headers()
        if not well:
            return
        if self.path == "/v1/chat/completions":
            self.chat(body)
            return
        with torch.inference_mode():
            pieces = list(stream(MODEL, TOKENIZER, body["prompt"], body["max_tokens"], body["stop_token_ids"]))
        for piece in pieces:
            self.event({"choices": [{"index": 0, "text": piece, "finish_reason": None}]})
        finish = "length" if len(pieces) == body["max_tokens"] else "stop"
        self.event({"choices": [{"index": 0, "text": "", "finish_reason": finish}]})
        self.event({"choices": [], "usage": {"completion_tokens": len(pieces)}})
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
