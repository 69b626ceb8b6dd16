"""An OpenAI-compatible server of the tuned model: engines, canaries, endpoints."""
