"""What the logits of a step go through until one token is picked: a file a stage, `registry` has them in order."""
