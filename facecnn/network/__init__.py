"""Layers, the loss, and the network over flat buffers. Start with ``layers``; ``facecnn.kernels.reference`` has the maths."""
