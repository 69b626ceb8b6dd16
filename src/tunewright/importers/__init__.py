"""Configurations of other trainers, converted to recipes."""
