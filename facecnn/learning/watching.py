"""Do the kernels learn? What each epoch shows of it, and which of them it shows to be dead or asleep.

All is taken at an epoch's end from what its last step left on the device. Within a step nothing is copied to the host;
before the last step of an epoch that is looked at closely, the kernels are copied on the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, prod
from typing import Any

import numpy as np

from facecnn.arrays import Array
from facecnn.network.network import Network, Stage

DEAD_SHARE = 1e-6
"""A kernel whose gradient is below this share of the largest kernel's in its layer gets no error to learn from."""

ASLEEP_SHARE = 0.01
"""A kernel is asleep whose update ratio is below this share of its layer's median, where such a share is more than the
rounding of the weights: when the schedule ends at a rate of next to nothing, no kernel moves."""

UNMOVED = 0.001
"""So is one that has moved by less than this share of its norm and, at its pace, would not move by more in a whole
training at the full learning rate."""

STEPS_BETWEEN_LOOKS = 10
"""Where epochs are shorter than this, not every one is looked at closely."""

LOOKS = 3
"""A kernel is named when so many close looks in a row have shown it dead or asleep."""

_MOST_OUTPUTS = 2**20
"""The share of active outputs is that of as many photos of the last batch as have so many outputs."""

_FLAT = 0.05
"""A sigmoid or tanh is on its flat side where its derivative is below this share of its largest."""

_MOST_NAMES = 6


class KernelWatch:
    """Compares the convolution kernels of a network with those that it started from, and with each other."""

    def __init__(self, network: Network) -> None:
        """To be made right after ``network.initialise``."""
        self._network = network
        backend, stages = network.backend, network.stages
        self._convs = [(number, stage) for number, stage in enumerate(stages) if stage.layer.has_kernels]
        self._trained = [(number, stage) for number, stage in self._convs if number >= network.first_trained]
        self.start = self.kernels()
        """The kernels (kernel, row, column, input map) of each conv layer before the first step, on the host."""
        self._before = {
            stage.name: backend.empty((self.start[stage.name].size,), network.dtype) for _, stage in self._trained
        }
        """Those before the last step of an epoch, on the device."""
        self._copy = backend.record(self._launch_copy, network.workspace)

    def kernels(self) -> dict[str, Array]:
        """The kernels (kernel, row, column, input map) of each conv layer as they are now, on the host."""
        weights = self._network.weights.by_stage
        return {stage.name: self._network.backend.to_host(weights[stage.name]["weight"]) for _, stage in self._convs}

    def before_last_step(self) -> None:
        """To be called before the last step of an epoch of which ``figures`` are wanted ``closely``."""
        self._copy()

    def _launch_copy(self) -> None:
        network, parameters = self._network, self._network.weights.parameters
        network.announce("watching", "")
        for name, before in self._before.items():
            start, _ = parameters.offsets[name, "weight"]
            weight = parameters.flat[start : start + before.shape[0]]
            network.backend.accumulate(before, weight, True, network.workspace)

    def figures(self, count: int, *, closely: bool, reach: float = inf) -> dict[str, Any]:
        """What an epoch's last step shows, before anything else runs forward.

        ``kernel_change``: for each conv layer the norm of (weights now - weights at the start) / norm at the start;
        ``dead_kernels``: ``conv1[3]`` and so on, for every kernel of a trained layer that got no gradient.

        Only if ``closely``, ``kernels``: for each trained conv layer the figures of its kernels, three digits of each:
        ``gradient_norm``: of the gradient of the batch's mean loss; ``update_ratio``: norm of what the step changed /
        norm of the kernel; ``active``: share of the outputs, over places and photos and after the pool where there is
        one, that aren't on the flat side of the activation (relu and its kin: above 0; sigmoid, tanh: at least 0.05 of
        the steepest slope; none without an activation); ``distance`` from the start, relative to the norm there.
        And ``asleep_kernels``, named like the dead ones. ``count``: photos that the last forward worked on. ``reach``:
        how many steps like the last one a whole training at the full learning rate has.
        """
        network = self._network
        assert network.gradient is not None
        now = self.kernels()
        dead: list[str] = []
        asleep: list[str] = []
        layers: dict[str, dict[str, list[float]]] = {}
        for number, stage in self._trained:
            name = stage.name
            norms = _norms(network.backend.to_host(network.gradient.by_stage[name]["weight"]))
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
            active = self._active(number, count)
            if active is not None:
                figures["active"] = active
            layers[name] = {figure: [float(f"{value:.3g}") for value in values] for figure, values in figures.items()}
        change = {name: _change(start, now[name]) for name, start in self.start.items()}
        figures_of_all: dict[str, Any] = {"kernel_change": change, "dead_kernels": dead}
        return {**figures_of_all, "asleep_kernels": asleep, "kernels": layers} if closely else figures_of_all

    def _active(self, number: int, count: int) -> Array | None:
        """The share of active outputs of each kernel of a conv layer; None without an activation."""
        found = activation_of(self._network.stages, number)
        if found is None:
            return None
        number, activation = found
        photos = max(1, min(count, _MOST_OUTPUTS // prod(self._network.stages[number].out_shape)))
        out = self._network.backend.to_host(self._network.context(number, count).out[:photos])
        if activation == "sigmoid":
            active = 4 * out * (1 - out) > _FLAT
        elif activation == "tanh":
            active = 1 - out * out > _FLAT
        else:
            active = out > 0
        maps = out.shape[-1]
        return np.asarray(np.count_nonzero(active.reshape(-1, maps), axis=0) / (out.size // maps))


def activation_of(stages: Sequence[Stage], number: int) -> tuple[int, str] | None:
    """The first activation from a layer on, and the number of the stage whose output is its; None where there is none
    before the next layer with weights of its own to sum with."""
    for later, stage in enumerate(stages[number:], start=number):
        if later > number and any(parameter.start == "random" for parameter in stage.parameters.values()):
            return None
        if stage.layer.activates_with != "identity":
            return later, stage.layer.activates_with
    return None


def _norms(kernels: Array) -> Array:
    return np.asarray(np.linalg.norm(kernels.reshape(len(kernels), -1).astype(np.float64), axis=1))


def _shares(parts: Array, wholes: Array) -> Array:
    return parts / np.maximum(wholes, np.finfo(np.float64).tiny)


def _change(start: Array, now: Array) -> float:
    """How far a layer's kernels have moved, as a share of their norm; from zeros, of the norm that they have now."""
    whole = np.linalg.norm(start) or np.linalg.norm(now) or 1.0
    return float(np.linalg.norm(now - start) / whole)


def _names(layer: str, which: Array) -> list[str]:
    return [f"{layer}[{kernel}]" for kernel in np.flatnonzero(which)]


class KernelNews:
    """Says which kernels don't learn, each once, and what can be tried."""

    def __init__(self, stages: Sequence[Stage], past: Iterable[Mapping[str, Any]] = ()) -> None:
        """``past``: the figures of the epochs that are over, whose kernels have been named."""
        self._activations = {
            stage.name: (activation_of(stages, number) or (0, "identity"))[1]
            for number, stage in enumerate(stages)
            if stage.layer.has_kernels
        }
        self._in_a_row: dict[str, dict[str, int]] = {"dead": {}, "asleep": {}}
        self._named: set[str] = set()
        self._advised: set[str] = set()
        for figures in past:
            self.of(figures)

    def of(self, figures: Mapping[str, Any]) -> list[str]:
        """What an epoch's figures bring to light: a message for the dead ones, one for those asleep, or none."""
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
