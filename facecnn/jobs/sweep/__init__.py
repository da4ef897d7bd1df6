"""Sweeps: search for the best settings in given ranges, by cross-validation."""
