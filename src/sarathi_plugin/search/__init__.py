"""Fluid capacity of a configuration, and what no configuration can exceed."""
