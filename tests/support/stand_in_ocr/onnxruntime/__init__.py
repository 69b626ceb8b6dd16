"""A stand-in: text recognition only looks whether the package is there."""
