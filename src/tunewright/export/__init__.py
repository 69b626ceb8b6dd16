"""Export: the tuned model as files that other programs load, each proven equal to what was examined; card and hub."""
