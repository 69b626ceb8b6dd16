"""Export: the tuned model as files that other programs load, each compared with the evaluated model."""
