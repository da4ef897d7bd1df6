"""What a setting must be, in words, from the type and the bounds that its class declares.

pydantic decides whether a value is right; its own messages are for programmers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from facecnn.config.source import Items, Node, Scalar, clipped, did_you_mean, kind


def branches(annotation: Any) -> Iterator[type[Any]]:
    """The types that a field may have, without unions and annotations around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from branches(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from branches(part)
    else:
        yield annotation


def either(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


_NUMBER_WORDS = {int: "a whole number", float: "a number"}


class Words:
    """What a field must be, in words."""

    def __init__(self, field: FieldInfo) -> None:
        self.types: list[Any] = []
        self.choices: list[str] = []
        self.bounds: list[Any] = list(field.metadata)
        self.item: Any = None
        self._gather(field.annotation)

    def _gather(self, annotation: Any) -> None:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            for extra in arguments[1:]:
                self.bounds += extra.metadata if isinstance(extra, FieldInfo) else [extra]
            self._gather(arguments[0])
        elif origin in (Union, UnionType):
            for part in arguments:
                self._gather(part)
        elif origin is Literal:
            self.choices += arguments
        elif origin is tuple:
            self.item = arguments
            self.types.append(tuple)
        else:
            self.types.append(annotation)

    def expected(self) -> str:
        words = [_NUMBER_WORDS[part] for part in self.types if part in _NUMBER_WORDS]
        if bool in self.types:
            words.append("true or false")
        if str in self.types:
            words.append("text")
        if self.item is not None:
            words.append(f"a list of {len(self.item)} such numbers")
        if any(is_dataclass(part) for part in self.types):
            words.append("a mapping (key: value)")
        words += self.choices
        if NoneType in self.types:
            words.append("null")
        return either(words)

    def fault(self, node: Node, path: str) -> tuple[Node, str]:
        """The node that is wrong, and what is wrong with it."""
        if isinstance(node, Items) and self.item is not None and len(node.nodes) == len(self.item):
            for number, (part, annotation) in enumerate(zip(node.nodes, self.item, strict=True)):
                words = Words(FieldInfo.from_annotation(annotation))
                if not words.accepts(part):
                    return part, words.fault(part, f"{path}[{number}]")[1]
        if isinstance(node, Items) and self.item is not None:
            return node, f"{path} must be {self.expected()}, got a list of {len(node.nodes)}"
        if not isinstance(node, Scalar):
            return node, f"{path} must be {self.expected()}, got {kind(node)}"
        value = node.value
        if value is None:
            return node, f"{path} has no value: it must be {self.expected()}"
        if isinstance(value, float) and math.isnan(value):
            return node, f"{path} must be {self.expected()}, got {node.text}"
        if self._is_number(value):
            if all(_holds(bound, cast(float, value)) for bound in self.bounds):
                return node, f"{path} is too large a number (got {clipped(node.text)})"
            limits = " and ".join(filter(None, map(_limit, self.bounds)))
            return node, f"{path} must be {limits} (got {clipped(node.text)})"
        if isinstance(value, float) and math.isinf(value) and node.text.lstrip("+-").isdecimal():
            return node, f"{path} is too large a number (got {clipped(node.text)})"
        if value == "" and str in self.types:
            return node, f"{path} is an empty text"
        return node, f"{path} must be {self.expected()}, got {kind(node)}{self._hint(value)}"

    def accepts(self, node: Node) -> bool:
        """Whether a list's element is a number within the bounds."""
        if not isinstance(node, Scalar) or not self._is_number(node.value):
            return False
        return all(_holds(bound, cast(float, node.value)) for bound in self.bounds)

    def _is_number(self, value: object) -> bool:
        if isinstance(value, bool):
            return False
        return (isinstance(value, int) and (int in self.types or float in self.types)) or (
            isinstance(value, float) and float in self.types
        )

    def _hint(self, value: object) -> str:
        if not isinstance(value, str):
            return ""
        if bool in self.types and value.lower() in ("yes", "no", "on", "off", "y", "n", "true", "false"):
            return ": write true or false, without quotes"
        if (int in self.types or float in self.types) and re.fullmatch(
            r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", value, re.IGNORECASE
        ):
            return ": write it without quotes"
        return did_you_mean(value, self.choices)


def _limit(bound: object) -> str:
    match bound:
        case Ge(ge=limit):
            return f"at least {limit}"
        case Gt(gt=limit):
            return f"greater than {limit}"
        case Le(le=limit):
            return f"at most {limit}"
        case Lt(lt=limit):
            return f"less than {limit}"
    return ""


def _holds(bound: object, value: float) -> bool:
    match bound:
        case Ge(ge=limit):
            return bool(value >= cast(float, limit))
        case Gt(gt=limit):
            return bool(value > cast(float, limit))
        case Le(le=limit):
            return bool(value <= cast(float, limit))
        case Lt(lt=limit):
            return bool(value < cast(float, limit))
    return True
