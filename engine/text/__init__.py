"""From a text to tokens and back: tokenizers, chat templates, prompts, lengths."""
