"""Recipes from other tools, and for other machines."""
