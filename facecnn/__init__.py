"""facecnn: train a small convolutional network to tell people's faces apart."""

__version__ = "0.1.0"
