"""Does ``facecnn group`` find the people of an album in which nobody is named?

The photos of people and of strangers are mixed, and the main face of each is grouped. A stranger has one photo, and is
a person of their own. The album is cut in two halves that share nobody (every other person, every other stranger). For
each method the threshold with the best F1 on one half is judged on the other, and the other way round. "as shipped"
takes facecnn's own threshold; "in all" judges the undivided album with it, or with the mean of the halves' thresholds.

Precision and recall of pairs: the share of the pairs of faces in one group that are of one person, and of the pairs of
one person that are in one group. B-cubed (Bagga and Baldwin 1998) averages over faces: precision is the share of the
face's group that is of the same person, recall the share of the person's faces that is in the group; F1 is the harmonic
mean of these averages.

With dlib and face_recognition_models installed, dlib's own pipeline is judged on the same photos: its detector, 68
points and embeddings, grouped by its Chinese whispers (thresholds 0.45 and 0.5, and the best of the other half) and by
average linkage. A photo in which it finds no face is a group of its own. Average linkage needs scikit-learn.

``--jitter N`` measures time and memory instead: N faces, each one of the embeddings with noise about as long as the
difference between two crops of one photo.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser, say
from common.tables import percent, table
from facecnn.arrays import Array
from facecnn.body.embedder import CHIP_SETTINGS, Embedder
from facecnn.body.grouping import ALONE, group_faces, threshold_for
from facecnn.errors import PhotoError, shown
from facecnn.jobs.faces import installed_finder
from facecnn.kernels import open_device
from facecnn.photos.dataset import load_files
from facecnn.photos.folder import UNKNOWN, list_photos, scan
from studies.album import CONSOLE

COLUMNS = ("method", "thresholds", "F1 of the halves", "F1", "pairs: precision", "recall", "F1 in all", "groups in all")
NOISE = 0.1
"""Length of the noise of ``--jitter``; dlib's embeddings differ by 0.05 to 0.12 between crops of one photo."""

Group = Callable[[Array, float], Array]
"""From embeddings (n, 128) and a threshold to the number of each face's group (n,), ``ALONE`` for one that is alone."""


@dataclass(frozen=True)
class Method:
    """A way to group."""

    name: str
    embeddings: Array
    """(photos, 128); NaN where no face was found."""
    group: Group
    thresholds: Sequence[float]
    """To choose from."""

    def labels(self, photos: Array, threshold: float) -> Array:
        """The group of each of ``photos``; a face that is alone has a number of its own."""
        found = np.isfinite(self.embeddings[photos, 0])
        group = np.full(len(photos), ALONE)
        group[found] = self.group(self.embeddings[photos[found]], threshold)
        return np.where(group == ALONE, len(photos) + np.arange(len(photos)), group)


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("people", type=Path, help="a folder with one folder of photos per person")
    arguments.add_argument("strangers", type=Path, help="a folder of photos of other people, one of each")
    arguments.add_argument("--jitter", type=at_least(2), metavar="N", help="measure the time of N faces")
    arguments.add_argument("--threads", type=at_least(1), help="(default: all)")
    options = arguments.parse_args()
    people = scan(options.people).people
    strangers = list_photos(options.strangers).files
    owners = [name for name, files in people.items() for _ in files] + [f"{UNKNOWN}/{file}" for file in strangers]
    files = [file for photos in people.values() for file in photos] + strangers
    device = open_device("cpu", options.threads)
    embeddings = embed(files, Embedder(device.backend), options.threads)
    usable = np.flatnonzero(np.isfinite(embeddings[:, 0]))
    if len(usable) < 2:
        raise PhotoError(f"{shown(options.people)}: no face in it")
    owner = np.unique(owners, return_inverse=True)[1][usable]
    if options.jitter:
        measure(embeddings[usable], options.jitter, device.description, options.threads)
        return
    methods = methods_of(embeddings[usable], [files[number] for number in usable.tolist()])
    print(f"{len(usable)} photos of {len(people)} people and {len(strangers)} strangers, {device.description}\n")
    print(table(rows_of(methods, owner, halves(owner)), COLUMNS))


def embed(files: Sequence[Path], embedder: Embedder, threads: int | None) -> Array:
    """The embeddings of the main faces (photos, 128); NaN for a photo without a face."""
    finder = installed_finder(CHIP_SETTINGS, CONSOLE, threads)
    loaded = load_files(files, CHIP_SETTINGS, finder=finder)
    usable = np.flatnonzero(loaded.row >= 0)
    found = embedder.embed(loaded.pixels, loaded.row[usable])
    embeddings = np.full((len(files), found.shape[1]), np.nan, np.float32)
    embeddings[usable] = found
    return embeddings


def methods_of(embeddings: Array, files: Sequence[Path]) -> list[Method]:
    """The methods that are installed."""
    cosines = np.arange(0.91, 0.965, 0.00125).tolist()
    methods = [
        Method("facecnn, as shipped", embeddings, _group, [threshold_for(0)]),
        Method("facecnn, chosen", embeddings, _group, cosines),
    ]
    linkage = average_linkage()
    if linkage is not None:
        units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        # Of unit vectors the distance is that of the cosine: d² = 2 - 2 cos.
        distances = np.arange(0.25, 0.5, 0.005).tolist()
        methods.append(Method("average linkage on facecnn's", units, linkage, distances))
    theirs = dlib_embeddings(files)
    if theirs is not None:
        distances = np.arange(0.35, 0.65, 0.01).tolist()
        methods += [
            Method("dlib, Chinese whispers 0.45", theirs, whispers, [0.45]),
            Method("dlib, Chinese whispers 0.5", theirs, whispers, [0.5]),
            Method("dlib, Chinese whispers, chosen", theirs, whispers, distances),
        ]
        if linkage is not None:
            methods.append(Method("average linkage on dlib's", theirs, linkage, distances))
    return methods


def _group(embeddings: Array, threshold: float) -> Array:
    return group_faces(embeddings, threshold=threshold)


def average_linkage() -> Group | None:
    """Average linkage by Euclidean distance; None where scikit-learn isn't installed."""
    try:
        from sklearn.cluster import AgglomerativeClustering
    except ImportError:
        say("average linkage is left out: scikit-learn isn't installed")
        return None

    def group(embeddings: Array, threshold: float) -> Array:
        clustering = AgglomerativeClustering(n_clusters=None, distance_threshold=threshold, linkage="average")
        return np.asarray(clustering.fit_predict(embeddings.astype(np.float64)))

    return group


def whispers(embeddings: Array, threshold: float) -> Array:
    """dlib's Chinese whispers."""
    import dlib

    return np.array(dlib.chinese_whispers_clustering([dlib.vector(row) for row in embeddings.tolist()], threshold))


def dlib_embeddings(files: Sequence[Path]) -> Array | None:
    """The embeddings of dlib's own pipeline (photos, 128), NaN where it finds no face; None where it isn't installed.

    Of several faces, the one nearest the middle counts.
    """
    import importlib.util

    from PIL import Image

    try:
        import dlib
    except ImportError:
        say("dlib is left out: it isn't installed")
        return None
    # Found, not imported: importing the package needs pkg_resources.
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        say("dlib is left out: face_recognition_models isn't installed")
        return None
    models = Path(spec.origin).parent / "models"
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(models / "shape_predictor_68_face_landmarks.dat"))
    network = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))
    embeddings = np.full((len(files), 128), np.nan)
    for number, file in enumerate(files):
        with Image.open(file) as image:
            picture = np.array(image.convert("RGB"))
        boxes = list(detector(picture, 1))  # enlarged once: otherwise it finds no faces below 80 pixels
        if boxes:
            middle = picture.shape[1] / 2, picture.shape[0] / 2
            box = min(boxes, key=lambda box: np.hypot(box.center().x - middle[0], box.center().y - middle[1]))
            embeddings[number] = network.compute_face_descriptor(picture, predictor(picture, box))
    return embeddings


def halves(owner: Array) -> tuple[Array, Array]:
    """The photos of every other person, and of the others: of people with several photos, and of those with one."""
    counts = np.bincount(owner)
    first: list[int] = [*np.flatnonzero(counts > 1)[::2].tolist(), *np.flatnonzero(counts == 1)[::2].tolist()]
    is_first = np.isin(owner, first)
    return np.flatnonzero(is_first), np.flatnonzero(~is_first)


def rows_of(methods: Sequence[Method], owner: Array, parts: tuple[Array, Array]) -> list[list[object]]:
    """The table's rows."""
    rows: list[list[object]] = []
    for method in methods:
        say(method.name)
        chosen = [best_threshold(method, photos, owner) for photos in parts]
        judged = [
            judge(method.labels(photos, threshold), owner[photos])
            for photos, threshold in zip(parts, reversed(chosen), strict=True)
        ]
        every = np.arange(len(owner))
        labels = method.labels(every, float(np.mean(chosen)))
        sizes = np.unique(labels, return_counts=True)[1]
        thresholds = f"{chosen[0]:.4g}" if chosen[0] == chosen[1] else f"{chosen[0]:.4g}, {chosen[1]:.4g}"
        rows.append(
            [
                method.name,
                thresholds,
                ", ".join(percent(figures["F1"]) for figures in judged),
                *(
                    percent(float(np.mean([figures[key] for figures in judged])))
                    for key in ("F1", "precision", "recall")
                ),
                percent(judge(labels, owner)["F1"]),
                int(np.count_nonzero(sizes > 1)),
            ]
        )
    return rows


def best_threshold(method: Method, photos: Array, owner: Array) -> float:
    """The middle one of the thresholds with nearly the best F1."""
    if len(method.thresholds) == 1:
        return float(method.thresholds[0])
    scores = np.array([judge(method.labels(photos, each), owner[photos])["F1"] for each in method.thresholds])
    good = np.flatnonzero(scores >= scores.max() - 0.0005)
    return float(method.thresholds[good[len(good) // 2]])


def judge(group: Array, owner: Array) -> Mapping[str, float]:
    """B-cubed F1, and precision and recall of pairs.

    Args:
        group: (n,) number of each face's group.
        owner: (n,) number of each face's person.
    """
    _, group = np.unique(group, return_inverse=True)
    _, owner = np.unique(owner, return_inverse=True)
    both = np.zeros((group.max() + 1, owner.max() + 1))
    np.add.at(both, (group, owner), 1)
    groups, owners = both.sum(axis=1), both.sum(axis=0)
    precision = float((both**2 / groups[:, None]).sum() / len(group))
    recall = float((both**2 / owners).sum() / len(group))
    right = pairs(both)
    return {
        "F1": 2 * precision * recall / (precision + recall),
        "precision": right / max(pairs(groups), 1.0),
        "recall": right / max(pairs(owners), 1.0),
    }


def pairs(counts: Array) -> float:
    """The number of pairs within groups of so many."""
    return float((counts * (counts - 1) / 2).sum())


def measure(embeddings: Array, count: int, machine: str, threads: int | None) -> None:
    """Print time and memory of grouping ``count`` jittered faces."""
    random = np.random.default_rng(0)
    chosen = embeddings[random.integers(0, len(embeddings), count)]
    noise = random.normal(0, NOISE / np.sqrt(chosen.shape[1]), chosen.shape)
    faces = (chosen + noise).astype(np.float32)
    before = time.perf_counter(), time.process_time()
    group = group_faces(faces, threads=threads)
    seconds, processor = time.perf_counter() - before[0], time.process_time() - before[1]
    row: list[Any] = [count, f"{seconds:.1f}", f"{processor:.1f}", peak_memory(), int(group.max()) + 1]
    print(f"{machine}\n")
    print(table([row], ("faces", "seconds", "processor seconds", "peak memory, GB", "groups")))


def peak_memory() -> str:
    """The largest amount of memory of this process so far, in GB."""
    try:
        import resource
    except ImportError:  # Windows
        return "-"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == 'darwin' else 1e6):.2f}"


if __name__ == "__main__":
    main()
