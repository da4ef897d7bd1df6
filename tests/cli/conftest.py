"""What the tests of the command line share: ways to call it, and trained runs."""

from pathlib import Path

import pytest

from .running import Facecnn, Trained, call, call_process


@pytest.fixture(scope="session")
def facecnn() -> Facecnn:
    return call


@pytest.fixture(scope="session")
def facecnn_process() -> Facecnn:
    return call_process


def _train(photos: Path, out: Path, name: str, *options: str) -> Trained:
    done = call("train", photos, "-c", "smoke", "--out", out, "--name", name, "--format", "json", *options)
    assert done.exit_code == 0, done.stderr
    return Trained(out / name, done.json(), photos)


@pytest.fixture(scope="session")
def trained(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run on two people. Not to be written to."""
    return _train(people, tmp_path_factory.mktemp("runs"), "two")


@pytest.fixture(scope="session")
def trained_with_strangers(people_and_strangers: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run on two people and strangers. Not to be written to."""
    return _train(people_and_strangers, tmp_path_factory.mktemp("runs"), "three", "--epochs", "12")
