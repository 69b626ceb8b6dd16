"""GGUF files: weights, vocabulary, chat templates for Ollama, and a run of them."""
