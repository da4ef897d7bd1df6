"""Everything that a training leaves on the disk: run folder, checkpoints, metrics and pictures."""
