"""Several processes, called ranks, that work together: what they tell each other, and how they are started.

``ranks`` says what a rank can do, ``mpi`` does it over MPI, ``launcher`` finds out whether there are several.
"""

from facecnn.parallel.ranks import ALONE, Ranks

_current: Ranks = ALONE


def current_ranks() -> Ranks:
    """The ranks that this process is one of, or ``ALONE``."""
    return _current


def become(ranks: Ranks) -> None:
    """Be one of ``ranks`` from now on."""
    global _current
    _current = ranks
