"""The body of a network that has learned from other people's photos: its layers, by the body's name."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.network.layers.base import Layer, LayerError, Shape, shape_text
from facecnn.network.layers.conv import Conv
from facecnn.network.layers.pool import Pool, PoolSettings
from facecnn.network.layers.residual import Residual
from facecnn.network.layers.units import Dense
from facecnn.settings import SETTINGS

PICTURE: Shape = (150, 150, 3)
"""The input of dlib's face network."""
BLOCKS = 14
"""Its residual blocks, of two convolutions each."""
_REPEATS = (3, 3, 2, 2, 0)
"""Number of blocks that keep their maps' size, at each number of filters."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Body(Layer):
    """All layers of a face network that was trained on other people, up to the units that describe a face.

    ``dlib``: the residual network of dlib's face recognition (He et al. 2016 with 29 convolutions and half the
    filters; King 2017), for aligned colour faces of 150 x 150 pixels: 128 units.
    """

    keyword: ClassVar[str] = "body"
    shorthand: ClassVar[str | None] = "name"

    EMBEDDING: ClassVar[int] = 128
    """Units that describe a face."""

    name: Literal["dlib"] = Field(
        default="dlib", description="dlib: its face network, 128 units for a picture of 150x150 in colour"
    )
    trained_blocks: Annotated[int, Field(ge=0, le=BLOCKS)] = Field(
        default=0, description="residual blocks, the last ones, that are trained with the units after them; 0: none"
    )

    def expand(self) -> tuple[Layer, ...]:
        return face_layers()

    def frozen_layers(self) -> int:
        """All, or those before the blocks that are trained."""
        layers = self.expand()
        blocks = [place for place, layer in enumerate(layers) if isinstance(layer, Residual)]
        return blocks[-self.trained_blocks] if self.trained_blocks else len(layers)

    def check_input(self, shape: Shape, is_first: bool) -> None:
        if not is_first:
            raise LayerError("a body begins with the picture: make it the network's first layer")
        if shape != PICTURE:
            raise LayerError(
                f"the body {self.name} is for pictures of {PICTURE[0]}x{PICTURE[1]} in colour, but these are of "
                f"{shape_text(shape)}: set photos.size: {PICTURE[0]} and photos.colour: rgb"
            )


def face_layers(filters: int = 32, units: int = Body.EMBEDDING) -> tuple[Layer, ...]:
    """The layers of dlib's face network, whose affine layers are part of the convolutions before them.

    ``filters``: of the first block; they double three times.
    """
    layers: list[Layer] = [
        Conv(kernels=filters, size=7, stride=2, activation="relu"),
        Pool(size=3, stride=2),
    ]
    for stage, repeats in enumerate(_REPEATS):
        count = filters * min(2**stage, 8)
        if stage > 0:
            layers.append(_block(count, halves=True))
        layers += [_block(count, halves=False)] * repeats
    return (*layers, Pool(size="global", kind="average"), Dense(units=units))


def _block(filters: int, *, halves: bool) -> Layer:
    """One that keeps rows and columns, or halves them: the shortcut is then padded to the branch's maps."""
    second = Conv(kernels=filters, padding="same", activation="identity")
    if not halves:
        return Residual(layers=(Conv(kernels=filters, padding="same", activation="relu"), second))
    first = Conv(kernels=filters, stride=2, activation="relu")
    return Residual(layers=(first, second), shortcut=PoolSettings(size=2, kind="average"))
