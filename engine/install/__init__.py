"""Machines: what is wrong with this one, and a kit for those without a network."""
