"""Talking to base and tuned: voices, commands, the conversation, and what lies behind an answer."""
