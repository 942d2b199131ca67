"""From logits to a text: configurations, distributions, strategies, the loop, and what it gives."""
