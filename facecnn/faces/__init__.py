"""Finding faces and their landmarks with networks that run on the project's own kernels."""
