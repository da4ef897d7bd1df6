"""Loss functions."""

from typing import Literal, TypeAlias, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.settings import SETTINGS


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class CrossEntropy:
    """Softmax cross-entropy, a mean over the batch."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target spread over all people")
    class_weights: Literal["balanced"] | None = Field(
        default=None, description="balanced: every person counts alike, whatever the number of photos | null"
    )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class MeanSquaredError:
    """Mean squared distance of the outputs from 1 for the right person and 0 for the others."""

    name: Literal["mean_squared_error"] = "mean_squared_error"


Loss: TypeAlias = CrossEntropy | MeanSquaredError
LOSSES: dict[str, type[Loss]] = {kind.name: kind for kind in get_args(Loss)}
