"""One protocol for every network: token ids in, hidden states and logits out.

Only this package knows about architectures. Lanes are rows of one batch; prompts of
different lengths are padded on the left, so all rows share one cache length.
"""
