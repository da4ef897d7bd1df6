"""Optimizers, schedules, the training loop, what watches it, calibration and scores."""
