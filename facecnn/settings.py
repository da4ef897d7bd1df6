"""How settings are declared: a frozen dataclass, checked by pydantic, next to the code of the thing that it sets."""

from __future__ import annotations

from pydantic import ConfigDict

SETTINGS = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
"""Passed to every settings dataclass: unknown keys are errors, ``true`` is not 1, text and nan are no numbers. Defaults
are checked too, so that 8 for a fraction becomes 8.0, as if it were given: equal settings give equal text."""
