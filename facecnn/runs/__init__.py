"""Storage of training: the run's folder, its checkpoints, metrics and kernel frames. Start reading at ``folder``."""
