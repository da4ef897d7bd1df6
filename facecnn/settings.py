"""How settings are declared: as frozen dataclasses, checked by pydantic, beside the code that uses them."""

from pydantic import ConfigDict

SETTINGS = ConfigDict(defer_build=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
"""For every settings dataclass: unknown keys are errors, ``true`` isn't 1, text and nan aren't numbers. Defaults are
checked, too, so 8 for a fraction becomes 8.0 as if it were given: equal settings give equal JSON."""

UNFIT = "unfit"
"""Type of pydantic's error for a value that doesn't fit another setting; its message follows the setting's name."""
