"""Parts that several panes and dialogs are made of."""
