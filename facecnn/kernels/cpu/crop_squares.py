"""Small crops of a picture, sampled bilinearly: as Pillow makes them, to the bit, but many in one call.

For each crop Pillow needs several Python objects, which takes longer than the sampling, and keeps the other threads
from their Python code meanwhile.
"""

from __future__ import annotations

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.launching import launch


def crop_squares(out: Array, picture: Array, boxes: Array, places: Array, outside: int) -> None:
    """Fill ``out`` with ``boxes`` of ``picture``; one thread does all of it.

    Args:
        out: (n, side, side, 3) uint8
        picture: (height, width, 3) uint8
        boxes: (m, 4) float64 left, top, right, bottom
        places: (m,) which of ``out`` each box becomes
        outside: value of what lies outside of the picture
    """
    launch(_crop_squares, out, picture, boxes, places, outside)


@compiled(exact=True)
def _crop_squares(out: Array, picture: Array, boxes: Array, places: Array, outside: int) -> None:
    height, width = picture.shape[:2]
    side = out.shape[1]
    for m in range(len(boxes)):
        left, top = boxes[m, 0], boxes[m, 1]
        step_x, step_y = (boxes[m, 2] - left) / side, (boxes[m, 3] - top) / side
        for i in range(side):
            y = step_y * (i + 0.5) + top
            inside = y >= 0 and y < height
            y -= 0.5
            row = int(np.floor(y)) if inside else 0
            dy = y - row
            above, below = picture[max(row, 0)], picture[min(row + 1, height - 1)]
            for j in range(side):
                pixel = out[places[m], i, j]
                x = step_x * (j + 0.5) + left
                if not (inside and x >= 0 and x < width):
                    pixel[0] = pixel[1] = pixel[2] = outside
                    continue
                x -= 0.5
                column = int(np.floor(x))
                dx = x - column
                first, second = max(column, 0), min(column + 1, width - 1)
                for c in range(3):
                    a, b = np.float64(above[first, c]), np.float64(above[second, c])
                    upper = a + (b - a) * dx
                    a, b = np.float64(below[first, c]), np.float64(below[second, c])
                    lower = a + (b - a) * dx
                    pixel[c] = np.uint8(upper + (lower - upper) * dy)
