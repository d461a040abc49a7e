"""Ablations: rows and seeds as DVC experiments, what they would run, and the table of their scores."""
