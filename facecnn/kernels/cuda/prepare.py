"""Crops of photos become the network's input.

The first kernel applies tone, warp and blur, tile by tile. "none" erases in the same kernel and is done. "standardise"
keeps the mean and the squared deviations of each tile; a second kernel merges them and scales the photo.
"local_contrast" blurs the photo down its columns and along its rows, then the squared differences from that, and
scales: six kernels in all.
"""

from __future__ import annotations

from facecnn.kernels.cuda.driver import launch
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.normalise import (
    ROWS_A_THREAD,
    TURNS,
    blur_down,
    root_of_blurred,
    scale_by_roots,
    standardise,
    subtract_blurred,
)
from facecnn.kernels.cuda.sizes import BLOCKS, THREADS
from facecnn.kernels.cuda.warp import TILE, warp
from facecnn.kernels.protocol import Normalise


def prepare_photos(
    out: Array, pixels: Array, rows: Array, parameters: Array, normalise: Normalise, workspace: Workspace
) -> None:
    """Tone, warp, blur, normalise and erase each photo."""
    photos, height, width, maps = out.shape
    pitch = width * maps
    lines = out.reshape(photos, height, pitch)
    flat = out.reshape(photos, height * pitch)
    stored, photo_rows, photo_columns, _ = pixels.shape
    stored_flat = pixels.reshape(stored, photo_rows * photo_columns * maps)

    tiles = -(-height // TILE[0]) * -(-width // TILE[1])
    measured = workspace.array("tiles", (photos, 3, tiles))
    to_tiles = warp(maps, normalise == "none", normalise == "standardise")
    blocks = (photos, max(1, min(tiles, BLOCKS // photos)))
    geometry = photo_rows, photo_columns
    launch(to_tiles, blocks, THREADS, workspace, lines, measured, stored_flat, rows, parameters, *geometry)

    per_element = (photos, -(-height * pitch // (THREADS * TURNS)))
    if normalise == "standardise":
        scale = standardise(maps)
        launch(scale, per_element, THREADS, workspace, flat, measured, parameters, height, pitch)
    elif normalise == "local_contrast":
        side = min(height, width)
        strips = (photos, -(-height // ROWS_A_THREAD * pitch // THREADS))
        between = workspace.array("blurred", (photos, height, pitch))
        roots = workspace.array("roots", (photos, height, pitch))
        sums = workspace.array("root sums", (photos, maps, strips[1]))
        launch(blur_down(side, False), strips, THREADS, workspace, between, lines)
        launch(subtract_blurred(side, maps), strips, THREADS, workspace, lines, between)
        launch(blur_down(side, True), strips, THREADS, workspace, between, lines)
        launch(root_of_blurred(side, maps), strips, THREADS, workspace, roots, sums, between)
        scale = scale_by_roots(maps)
        flat_roots = roots.reshape(photos, height * pitch)
        launch(scale, per_element, THREADS, workspace, flat, flat_roots, sums, parameters, height, pitch)
