"""The tuned model behind an OpenAI-compatible address, after a canary has shown that it is the tuned one."""
