"""Watches whether convolution kernels learn, and names those that are dead or asleep.

All figures are taken at an epoch's end from what its last step left on the device. Nothing is copied to the host within
a step; before the last step of an epoch that is looked at closely, the kernels are copied on the device.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import inf, prod
from typing import Any
from weakref import proxy

import numpy as np

from facecnn.arrays import Array
from facecnn.network.network import Network
from facecnn.network.stages import Stage, all_layers

DEAD_SHARE = 1e-6
"""A kernel is dead if its gradient's norm is at most this share of the largest in its layer."""

ASLEEP_SHARE = 0.01
"""A kernel is asleep if its update ratio is below this share of its layer's median, unless that is within the weights'
rounding: when the schedule ends at a rate near 0, no kernel moves."""

UNMOVED = 0.001
"""A kernel is also asleep if it has moved by less than this share of its norm and, at its pace, wouldn't move by more
in a whole run at the full learning rate."""

STEPS_BETWEEN_LOOKS = 10
"""If epochs have fewer steps, only some are looked at closely."""

LOOKS = 3
"""Number of close looks in a row that must show a kernel dead or asleep before it is named."""

_MOST_OUTPUTS = 2**20
"""Number of outputs of a layer that are looked at for the share of active ones, in whole photos of the last batch."""

_FLAT = 0.05
"""A sigmoid or tanh is flat where its derivative is below this share of the largest."""

_MOST_NAMES = 6


class KernelWatch:
    """Compares a network's convolution kernels with the initial ones, and with each other."""

    def __init__(self, network: Network) -> None:
        """Create this right after ``network.initialise``."""
        self._network = network
        self._layers = all_layers(network.stages)
        self._convs = watched(network.stages)
        self._trained = [name for name in self._convs if name.partition(".")[0] in network.trained]
        self.start = self.kernels()
        """Initial kernels (kernel, row, column, input map) of each conv layer, on the host."""
        self._before = {name: network.backend.empty((self.start[name].size,), network.dtype) for name in self._trained}
        """Kernels before the last step of an epoch, on the device."""
        self.before_last_step = network.backend.record(partial(KernelWatch._copy, proxy(self)), network.workspace)
        """Call this before the last step of an epoch whose ``figures`` are wanted ``closely``."""

    def kernels(self) -> dict[str, Array]:
        """Current kernels (kernel, row, column, input map) of each conv layer, on the host."""
        weights = self._network.weights.parameters.named
        return {name: self._network.backend.to_host(weights[f"{name}.weight"]) for name in self._convs}

    def _copy(self) -> None:
        network, parameters = self._network, self._network.weights.parameters
        network.announce("watching", "")
        for name, before in self._before.items():
            weight = parameters.named[f"{name}.weight"].reshape(before.shape[0])
            network.backend.accumulate(before, weight, True, network.workspace)

    def figures(self, count: int, *, closely: bool, reach: float = inf) -> dict[str, Any]:
        """The figures of an epoch's last step; call this before anything else runs forward.

        ``reach``: number of steps like the last one in a whole run at the full learning rate.

        Returns:
            ``kernel_change``: norm of (weights - initial weights) / norm of the initial ones, of each conv layer.
            ``dead_kernels``: ``conv1[3]`` and so on, for every kernel of a trained layer that got no gradient.
            If ``closely`` also ``asleep_kernels`` and ``kernels``, which has for each trained conv layer the figures of
            its kernels, to three digits: ``gradient_norm``, of the batch's mean loss; ``update_ratio``, norm of the
            step's change / norm of the kernel; ``distance`` from the initial kernel, relative to its norm; and with an
            activation ``active``, the share of outputs, after pooling, that aren't on its flat side (above 0; for
            sigmoid and tanh, with at least 0.05 of the steepest slope).
        """
        network = self._network
        assert network.gradient is not None
        now = self.kernels()
        dead: list[str] = []
        asleep: list[str] = []
        layers: dict[str, dict[str, list[float]]] = {}
        for name in self._trained:
            norms = _norms(network.backend.to_host(network.gradient.named[f"{name}.weight"]))
            is_dead = norms <= DEAD_SHARE * norms.max()
            dead += _names(name, is_dead)
            if not closely:
                continue
            before = network.backend.to_host(self._before[name]).reshape(now[name].shape)
            ratio = _shares(_norms(now[name] - before), _norms(before))
            distance = _shares(_norms(now[name] - self.start[name]), _norms(self.start[name]))
            slow = (ratio < UNMOVED / reach) & (distance < UNMOVED)
            share = ASLEEP_SHARE * np.median(ratio)
            behind = (ratio < share) & (share > np.finfo(now[name].dtype).eps)
            asleep += _names(name, ~is_dead & (slow | behind))
            figures = {"gradient_norm": norms, "update_ratio": ratio, "distance": distance}
            active = self._active(name, count)
            if active is not None:
                figures["active"] = active
            layers[name] = {
                figure: [float(f"{value:.3g}") for value in values.tolist()] for figure, values in figures.items()
            }
        change = {name: _change(start, now[name]) for name, start in self.start.items()}
        figures_of_all: dict[str, Any] = {"kernel_change": change, "dead_kernels": dead}
        return {**figures_of_all, "asleep_kernels": asleep, "kernels": layers} if closely else figures_of_all

    def _active(self, name: str, count: int) -> Array | None:
        """Share of active outputs of each kernel of a conv layer; None without an activation."""
        place = [stage.name for stage in self._layers].index(name)
        found = activation_of(self._layers, place)
        if found is None:
            return None
        last, activation = found
        photos = max(1, min(count, _MOST_OUTPUTS // prod(self._layers[last].out_shape)))
        kernels = self._layers[place].out_shape[-1]  # a sum with a shortcut may have more maps
        out = self._network.backend.to_host(self._network.output_of(self._layers[last].name, count)[:photos])
        out = out[..., :kernels]
        if activation == "sigmoid":
            active = 4 * out * (1 - out) > _FLAT
        elif activation == "tanh":
            active = 1 - out * out > _FLAT
        else:
            active = out > 0
        # Whole rows are added up first, in vectors: a layer has few maps.
        rows = active.sum(axis=tuple(range(active.ndim - 2)), dtype=np.int32)
        maps = out.shape[-1]
        return np.asarray(rows.reshape(-1, maps).sum(axis=0) / (out.size // maps))


def watched(stages: Sequence[Stage]) -> list[str]:
    """Whole names of the layers whose kernels are watched and drawn: all that have kernels, except those of a body that
    keeps its weights whatever the settings say."""
    return [stage.name for stage in all_layers(stages) if stage.layer.has_kernels and not stage.keeps_weights]


def activation_of(stages: Sequence[Stage], number: int) -> tuple[int, str] | None:
    """The first activation at or after a layer, and the index of the stage that applies it; None if a layer that sums
    with weights of its own comes first."""
    for later, stage in enumerate(stages[number:], start=number):
        if later > number and any(parameter.start == "random" for parameter in stage.parameters.values()):
            return None
        if stage.layer.activates_with != "identity":
            return later, stage.layer.activates_with
    return None


def _norm(array: Array) -> np.floating[Any]:
    """The norm of all numbers, as of ``np.linalg.norm``, which takes twice as long for few."""
    flat = array.reshape(-1)
    norm: np.floating[Any] = np.sqrt(flat.dot(flat))
    return norm


def _norms(kernels: Array) -> Array:
    """The norm of each kernel (kernels,), in float64."""
    flat = kernels.reshape(len(kernels), -1).astype(np.float64)
    return np.asarray(np.sqrt(np.add.reduce(flat * flat, axis=1)))


def _shares(parts: Array, wholes: Array) -> Array:
    return parts / np.maximum(wholes, np.finfo(np.float64).tiny)


def _change(start: Array, now: Array) -> float:
    """How far a layer's kernels have moved, relative to their initial norm; from zeros, relative to the current
    norm."""
    return float(_norm(now - start) / (_norm(start) or _norm(now) or 1.0))


def _names(layer: str, which: Array) -> list[str]:
    return [f"{layer}[{kernel}]" for kernel in np.flatnonzero(which)]


class KernelNews:
    """Says which kernels don't learn, each of them once, and what to try."""

    def __init__(self, stages: Sequence[Stage], past: Iterable[Mapping[str, Any]] = ()) -> None:
        """``past``: figures of past epochs, whose kernels have been named."""
        layers = all_layers(stages)
        self._activations = {
            stage.name: (activation_of(layers, number) or (0, "identity"))[1]
            for number, stage in enumerate(layers)
            if stage.layer.has_kernels
        }
        self._in_a_row: dict[str, dict[str, int]] = {"dead": {}, "asleep": {}}
        self._named: set[str] = set()
        self._advised: set[str] = set()
        for figures in past:
            self.of(figures)

    def of(self, figures: Mapping[str, Any]) -> list[str]:
        """Messages about an epoch's figures: one for newly dead kernels, one for those asleep, or none."""
        if "kernels" not in figures:
            return []
        messages = []
        for state, in_a_row in self._in_a_row.items():
            shown = figures[f"{state}_kernels"]
            self._in_a_row[state] = {name: in_a_row.get(name, 0) + 1 for name in shown}
            new = [name for name in shown if self._in_a_row[state][name] == LOOKS and name not in self._named]
            if new:
                self._named.update(new)
                messages.append(self._message(state, new, figures))
        return messages

    def _message(self, state: str, names: list[str], figures: Mapping[str, Any]) -> str:
        by_layer: dict[str, list[int]] = {}
        for name in names:
            layer, _, number = name.removesuffix("]").partition("[")
            by_layer.setdefault(layer, []).append(int(number))
        parts = []
        silent = False
        for layer, numbers in by_layer.items():
            active = figures["kernels"][layer].get("active")
            never = active is not None and not any(active[number] for number in numbers)
            silent |= never
            count = len(figures["kernels"][layer]["distance"])
            shown = [f"{layer}[{number}]" for number in numbers[:_MOST_NAMES]]
            more = f" and {len(numbers) - len(shown)} more" if len(numbers) > len(shown) else ""
            text = f"all {count} of {layer}" if len(numbers) == count > 1 else ", ".join(shown) + more
            parts.append(f"{text} (never active)" if state == "dead" and never else text)
        what = "dead: no error reaches them" if state == "dead" else "asleep: they hardly move"
        message = f"epoch {figures['epoch']}: kernels that don't learn ({what}): {'; '.join(parts)}"
        if state in self._advised:
            return message
        self._advised.add(state)
        return f"{message}\n{_advice(state, silent, {self._activations[layer] for layer in by_layer})}"


def _advice(state: str, silent: bool, activations: set[str]) -> str:
    if state == "asleep":
        tries = [
            "a higher optimizer.learning_rate, or adamw, which gives each weight a step of its own",
            "batch_norm after the layer",
            "--set train.initialisation=lsuv",
        ]
    else:
        tries = [
            "a lower optimizer.learning_rate, or a longer schedule.warmup",
            "--set train.initialisation=lsuv",
            "batch_norm after the layer",
            "more kernels, so that enough are left",
        ]
        if activations - {"identity", "leaky_relu"}:
            tries.insert(0, "activation leaky_relu, which is never quite flat")
        if not silent:
            tries.insert(0, "a look at the layers above: their weights may be 0")
    return "\n".join(["  Worth a try, one at a time:", *(f"  - {line}" for line in tries)])
