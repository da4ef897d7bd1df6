"""A training, from the first photo to the finished run folder; and what can be tried before one."""
