"""What a model is, where its files come from, and a model in this process."""
