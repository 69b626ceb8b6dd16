"""Intervals, tests, power and agreement: numbers in, numbers out."""
