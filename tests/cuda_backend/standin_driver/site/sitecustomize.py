"""For Python processes that are to take the stand-in driver for a card, with this folder on their path.

``prove`` runs a kernel and refuses a card on which it doesn't compute what it should. Here kernels compute nothing, so
its verdict is left out: that kernels are right is what a card is needed for.
"""

from contextlib import suppress
from functools import cache
from typing import Any

from facecnn.kernels import cards

_backend = cards._backend


@cache
def _without_verdict() -> Any:
    devices = _backend()
    prove = devices.prove

    def prove_all_but_the_result() -> None:
        with suppress(RuntimeError):
            prove()

    devices.prove = prove_all_but_the_result
    return devices


cards._backend = _without_verdict
