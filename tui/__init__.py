"""The screen: panes that show events. Nothing here imports torch."""
