"""Chat with base and tuned model: models, commands, the conversation, and the sources of an answer."""
