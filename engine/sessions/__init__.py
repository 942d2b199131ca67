"""Sessions: what they hold, and where they are kept."""
