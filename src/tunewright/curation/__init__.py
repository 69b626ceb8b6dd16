"""The rules of the training set: verification, duplicates, leaks, privacy, own data, preference pairs."""
