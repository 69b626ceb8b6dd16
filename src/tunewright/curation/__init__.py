"""What may enter the training set: verification, duplicates, leaks, the user's own data."""
