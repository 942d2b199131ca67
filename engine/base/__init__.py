"""What everything may use and what uses nothing of the house: errors, language, paths, files, log, clock, machine."""
