"""Guided lessons: the built-in one in each language, their form, and answers to their questions."""
