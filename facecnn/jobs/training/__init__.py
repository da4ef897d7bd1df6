"""Training, from the first photo to the finished run folder, and checks before it."""
