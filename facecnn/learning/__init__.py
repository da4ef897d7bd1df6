"""Step rules, schedules, the training loop, what watches it, calibration and scores."""
