"""How long generation takes: sweeps, runs, measurements, tables and charts."""
