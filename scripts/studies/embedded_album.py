"""Embeddings of an album's main faces, by facecnn and by dlib itself."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.command import say
from common.dlib_embedding import embeddings
from facecnn.arrays import Float32Array, Int64Array
from facecnn.body.embedder import CHIP_SETTINGS, Embedder
from facecnn.errors import PhotoError, UsageError, shown
from facecnn.jobs.faces import installed_finder
from facecnn.kernels import open_device
from facecnn.photos.dataset import load_files
from facecnn.photos.face import Face
from facecnn.photos.folder import list_photos
from studies.album import CONSOLE, read_album

NO_DLIB = "dlib isn't installed (pip install dlib-bin), so it isn't compared with"


@dataclass(frozen=True)
class EmbeddedAlbum:
    """Photos with a face."""

    embeddings: Float32Array
    """(n, 128), each the mean over a photo and its mirror image."""
    by_dlib: Float32Array
    """(n, 128), by dlib's own detector, landmarks and network; (0, 128) if it isn't installed."""
    labels: Int64Array
    """(n,): the person of each; strangers have a number each."""
    fold: Int64Array
    """(n,): the fold for cross-validation of each, -1 where some person has too few photos for that."""


def embed_people(folder: Path, folds: int, threads: int | None) -> EmbeddedAlbum:
    """Embed an album with a folder for each person. Raises PhotoError."""
    album, _ = read_album(folder, CHIP_SETTINGS, threads)
    say(f"{shown(folder)}: {len(album.paths)} photos of {len(album.people)} people")
    fold = np.full(len(album.paths), -1)
    if np.bincount(album.labels).min() >= folds:
        for number, indices in enumerate(album.folds(folds)):
            fold[indices] = number
    embeddings = Embedder(open_device("cpu", threads).backend).embed(album.pixels, album.rows)
    by_dlib = embed_with_dlib(album.files, [faces[0] for faces in album.faces])
    return EmbeddedAlbum(embeddings, by_dlib, album.labels, fold)


def embed_strangers(folder: Path, threads: int | None) -> EmbeddedAlbum:
    """Embed a folder of photos of different people. Raises PhotoError."""
    finder = installed_finder(CHIP_SETTINGS, CONSOLE, threads)
    photos = load_files(list_photos(folder).files, CHIP_SETTINGS, finder=finder)
    usable = np.flatnonzero(photos.row >= 0)
    say(f"{shown(folder)}: {len(usable)} strangers, {len(photos.paths) - len(usable)} photos can't be used")
    if not len(usable):
        raise PhotoError(f"{shown(folder)}: no photo can be used: {photos.reasons[0]}")
    embeddings = Embedder(open_device("cpu", threads).backend).embed(photos.pixels, photos.row[usable])
    by_dlib = embed_with_dlib([str(photos.paths[i]) for i in usable], [photos.faces[i][0] for i in usable])
    return EmbeddedAlbum(embeddings, by_dlib, np.arange(len(usable)), np.full(len(usable), -1))


def embed_with_dlib(files: list[str] | tuple[str, ...], faces: list[Face]) -> Float32Array:
    """dlib's embeddings (n, 128) of photos, (0, 128) if it isn't installed.

    Where it finds no face, facecnn's box is taken: none is missing, so that both are judged by the same photos.
    """
    if importlib.util.find_spec("dlib") is None:
        return np.zeros((0, 128), np.float32)
    try:
        return embeddings(files, [face.box for face in faces])
    except ModuleNotFoundError as error:
        raise UsageError(str(error)) from None


def write(path: Path, albums: dict[str, EmbeddedAlbum]) -> None:
    """Keep albums in an .npz file."""
    arrays = {f"{name}.{key}": value for name, album in albums.items() for key, value in vars(album).items()}
    np.savez_compressed(path, **arrays)


def read(path: Path) -> dict[str, EmbeddedAlbum]:
    """Read what ``write`` kept. Raises UsageError."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
        names = dict.fromkeys(key.partition(".")[0] for key in arrays)
        return {
            name: EmbeddedAlbum(*(arrays[f"{name}.{key}"] for key in EmbeddedAlbum.__dataclass_fields__))
            for name in names
        }
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{shown(path)}: no embeddings kept by this script: delete it, or name another") from error
