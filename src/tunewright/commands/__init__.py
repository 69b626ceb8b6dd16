"""The body of each command that is not a stage."""
