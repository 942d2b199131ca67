"""Used by every room, and uses none: errors, language, paths, files, settings, retries, log, clock, machine."""
