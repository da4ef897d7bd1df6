"""Gradient check: compares what backward computes with finite differences of what forward computes.

For a weight w, and a loss L that depends on it, five points give the derivative to the fourth order (Abramowitz and
Stegun 1964, 25.3.6):

    dL/dw = (L(w - 2h) - 8 L(w - h) + 8 L(w + h) - L(w + 2h)) / 12h

This only needs forward, so it can be trusted where the algebra of backward can't. It costs four forward passes for each
number, so the network is shrunk first (``shrink``): the same layers with fewer kernels and units, on a picture just
large enough.

What could spoil the comparison, and the remedies:
    Kinks. Where a pool's winner changes, or a relu's input its sign, within the step, the loss has no derivative.
    Random numbers are drawn again until every kink is far away; a kink that is crossed nevertheless is noticed.
    Symmetry. A loss that is a plain sum of the outputs, or a square picture, hides exchanged indices. So L is the sum
    of outputs times random numbers (``dout``), and pictures are wider than high.
    Rounding. Everything is float64, in which a step of 2e-5 leaves errors of about 1e-9.
"""
