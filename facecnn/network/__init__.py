"""Layers, the loss, and the network over flat buffers. Start with ``layers``; the maths is in ``facecnn.kernels``."""
