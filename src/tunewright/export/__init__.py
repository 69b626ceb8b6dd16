"""Export: the tuned model as files that other programs load."""
