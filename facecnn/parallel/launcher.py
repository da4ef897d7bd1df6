"""Whether an MPI launcher has started this process as one of several, by environment variables alone."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from facecnn.errors import UsageError, shown

SWITCH = "FACECNN_MPI"
"""Environment variable: ``off`` makes each process train by itself, whatever has started it."""

TIME_LIMIT = "FACECNN_MPI_TIME_LIMIT"
"""Environment variable: seconds that ranks wait for one that doesn't answer, before all end."""

DEFAULT_TIME_LIMIT = 600.0
"""Longer than the first step takes where every kernel has to be compiled."""

_VARIABLES = (
    ("PMI_RANK", "PMI_SIZE", "mpiexec"),  # MPICH and its relatives
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "mpirun"),  # Open MPI
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "mpirun"),  # MVAPICH2
    # A Slurm batch script has SLURM_PROCID and SLURM_NTASKS, too, but isn't a step of several tasks: srun starts those.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "srun"),
)
"""Names of the variables with a process's rank and the number of ranks, and the launcher that sets them."""


@dataclass(frozen=True)
class Launched:
    """One of several processes that a launcher has started."""

    rank: int
    size: int
    launcher: str


def launched(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """What the launcher says; None if it started one process, or there is none. Raises UsageError for a bad SWITCH."""
    switch = environment.get(SWITCH, "")
    if switch not in ("", "auto", "off"):
        raise UsageError(f"{SWITCH} is {shown(switch[:80])!r}: set it to auto or off, or unset it")
    if switch == "off":
        return None
    for rank, size, launcher in _VARIABLES:
        numbers = [environment.get(name, "").strip() for name in (rank, size)]
        if all(number.isdecimal() for number in numbers):
            found = Launched(int(numbers[0]), int(numbers[1]), launcher)
            return found if found.size > 1 else None
    return None


def time_limit(environment: Mapping[str, str] = os.environ) -> float:
    """Seconds to wait for a rank that doesn't answer. Raises UsageError for a bad TIME_LIMIT."""
    text = environment.get(TIME_LIMIT, "")
    if not text:
        return DEFAULT_TIME_LIMIT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 1e9:
        raise UsageError(f"{TIME_LIMIT} is {shown(text[:80])!r}: set it to a number of seconds, 1 or more, or unset it")
    return seconds
