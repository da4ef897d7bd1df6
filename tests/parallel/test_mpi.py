"""What ranks over MPI need besides MPI."""

import threading

from facecnn.parallel import mpi


def test_a_heart_beats_until_it_is_stopped() -> None:
    beaten = threading.Event()
    heart = mpi._Heart(1e-3, beaten.set)
    assert beaten.wait(60)
    heart.stop()
    assert not heart._thread.is_alive()
