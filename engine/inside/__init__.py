"""Looking inside a model: what each block adds, and what can be read off it."""
