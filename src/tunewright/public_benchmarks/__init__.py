"""Public benchmarks of base and tuned: lm-eval's tasks by name or from files, and a small agent environment."""
