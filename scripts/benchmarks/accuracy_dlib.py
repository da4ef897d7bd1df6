"""The program that benchmark.py times for dlib's way from photos to a model: its detector and landmarks, embeddings of
its pretrained network, and scikit-learn's logistic regression.

    accuracy_dlib.py train|judge PHOTOS FOLDER

``train`` writes the model to the folder, ``judge`` prints its accuracy on the photos. It imports nothing of facecnn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.dlib_embedding import embeddings


def main() -> None:
    job, photos, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    files = sorted(photos.glob("*/*"))
    people = np.array([file.parent.name for file in files])
    rows = embeddings(files)
    if job == "train":
        model = LogisticRegression(max_iter=1000).fit(rows, people)
        np.savez(folder / "model.npz", people=model.classes_, weights=model.coef_, bias=model.intercept_)
        return
    with np.load(folder / "model.npz") as model:
        scores = rows @ model["weights"].T + model["bias"]
        if scores.shape[1] == 1:  # two people: for the second
            scores = np.hstack([-scores, scores])
        named = model["people"][scores.argmax(1)]
    print(json.dumps({"closed_set_accuracy": float((named == people).mean()), "photos": len(files)}))


if __name__ == "__main__":
    main()
