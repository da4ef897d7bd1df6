"""Whether a launcher has started several processes is seen by environment variables alone."""

import subprocess
import sys

import pytest

from facecnn.errors import UsageError
from facecnn.parallel.launcher import DEFAULT_TIME_LIMIT, Launched, launched, time_limit

BATCH_SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
"""What Slurm sets in a batch script, which runs once."""


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"PMI_RANK": "1", "PMI_SIZE": "3"}, Launched(1, 3, "mpiexec")),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, None),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}, Launched(2, 4, "mpirun")),
        (BATCH_SCRIPT, None),
        (BATCH_SCRIPT | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, Launched(3, 4, "srun")),
        # mpiexec in a batch script starts one helper a node with srun, and the ranks with that
        (
            BATCH_SCRIPT | {"SLURM_STEP_NUM_TASKS": "2", "PMI_RANK": "5", "PMI_SIZE": "8"},
            Launched(5, 8, "mpiexec"),
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "3", "FACECNN_MPI": "off"}, None),
        ({"PMI_RANK": "1", "PMI_SIZE": "3", "FACECNN_MPI": "auto"}, Launched(1, 3, "mpiexec")),
        ({"PMI_RANK": "1", "PMI_SIZE": "many"}, None),
    ],
)
def test_the_launchers_variables(environment: dict[str, str], found: Launched | None) -> None:
    assert launched(environment) == found


def test_a_switch_that_is_neither_on_nor_off_is_refused() -> None:
    with pytest.raises(UsageError, match="FACECNN_MPI is 'no': set it to auto or off"):
        launched({"FACECNN_MPI": "no"})


def test_the_time_limit() -> None:
    assert time_limit({}) == DEFAULT_TIME_LIMIT
    assert time_limit({"FACECNN_MPI_TIME_LIMIT": "2.5"}) == 2.5
    for text in ("0", "-3", "soon", "nan", "inf"):
        with pytest.raises(UsageError, match="FACECNN_MPI_TIME_LIMIT is"):
            time_limit({"FACECNN_MPI_TIME_LIMIT": text})


def test_without_a_launcher_nothing_of_mpi_is_imported() -> None:
    code = "import sys, facecnn.cli.train, facecnn.jobs.training.train; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "facecnn.parallel.ranks" in loaded
    assert "mpi4py" not in loaded
