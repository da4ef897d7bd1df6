"""The shape of a JSON result, as it is promised to callers."""

from typing import Any

NUMBER = (int, float)


def check(value: Any, promised: Any, where: str = "$") -> None:
    """Fail unless ``value`` has what was promised: the keys of a dict (there may be more), the elements of a list, a
    type, or one of several; ``None`` for null."""
    if isinstance(promised, dict):
        assert isinstance(value, dict), where
        assert promised.keys() <= value.keys(), f"{where}: {promised.keys() - value.keys()} missing"
        for key, inner in promised.items():
            check(value[key], inner, f"{where}.{key}")
    elif isinstance(promised, list):
        assert isinstance(value, list), where
        for index, element in enumerate(value):
            check(element, promised[0], f"{where}[{index}]")
    elif isinstance(promised, tuple):
        errors = []
        for choice in promised:
            try:
                check(value, choice, where)
                return
            except AssertionError as error:
                errors.append(str(error))
        raise AssertionError(f"{where}: {value!r}: none of {promised}: {errors}")
    elif promised is None:
        assert value is None, f"{where}: {value!r} is not null"
    else:
        assert type(value) is promised, f"{where}: {value!r} is no {promised.__name__}"
