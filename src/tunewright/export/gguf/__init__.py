"""GGUF files: weights, vocabulary, chat templates for Ollama, and the runner that checks them."""
