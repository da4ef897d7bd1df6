"""The worker process of benchmark.py that runs PyTorch: the same networks, built from its modules as users do it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.work import WARM_UP_STEPS, Work, Worker, serve
from facecnn.learning.optimizers import Momentum
from facecnn.network.layers import Activate, BatchNorm, Conv, Dense, Dropout, Neuron, Pool, Residual, UnitLength
from facecnn.network.layers.residual import SHORTCUT
from facecnn.network.stages import Stage


class Torch:
    """PyTorch on the processor or a card. Options: threads, device, and

    channels_last  the pictures' memory format (otherwise NCHW)
    compile        null: eager; otherwise torch.compile's mode: default, or reduce-overhead (which makes CUDA graphs)
    one_graph      the whole step, update included, is captured as one CUDA graph and replayed
    tf32           products with a significand of 10 bits, on the card's tensor cores
    bf16           autocast: convolutions and products in bfloat16, with a significand of 7 bits
    """

    note = None

    def __init__(self, options: dict[str, Any]) -> None:
        torch.set_num_threads(options["threads"])
        self._on_card: bool = options["device"] == "cuda"
        if self._on_card and not torch.cuda.is_available():
            raise RuntimeError(f"PyTorch {torch.__version__} finds no card")
        self._device = torch.device(options["device"])
        self._format = torch.channels_last if options["channels_last"] else torch.contiguous_format
        self._compile: str | None = options["compile"]
        self._one_graph: bool = options["one_graph"]
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = options["tf32"]
        self._bf16: bool = options["bf16"]
        self._loss = torch.zeros(())

    @property
    def device(self) -> str:
        return torch.cuda.get_device_name(self._device) if self._on_card else "cpu"

    @property
    def waits_for_device(self) -> bool:
        return self._on_card

    def training(self, work: Work, learning_rate: float) -> Callable[[], object]:
        model, x = self._model(work).train(), self._pictures(work)
        y = torch.from_numpy(work.labels).long().to(self._device)
        optimizer = self._optimizer(work, model, learning_rate)
        smoothing = work.loss.label_smoothing

        def loss_of(x: torch.Tensor) -> torch.Tensor:
            with self._autocast():
                logits = model(x)
            return functional.cross_entropy(logits.float(), y, label_smoothing=smoothing)

        objective = self._as_asked(loss_of)

        averaged = [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]
        averages = [tensor.detach().clone() for tensor in averaged]
        average = None if work.average_weights is None else get_ema_multi_avg_fn(work.average_weights)

        def step() -> None:
            if self._compile == "reduce-overhead":
                torch.compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad(set_to_none=True)
            loss = objective(x)
            loss.backward()
            optimizer.step()
            self._loss = loss.detach()
            if average is not None:
                average(averages, averaged, 0)

        if not self._one_graph:
            return step
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        play = captured(step, optimizer.zero_grad)
        model.load_state_dict(before)
        for state in optimizer.state.values():
            for tensor in filter(torch.is_tensor, state.values()):
                tensor.zero_()
        return play

    def loss(self) -> float:
        return float(self._loss)

    def predicting(self, work: Work) -> Callable[[], npt.NDArray[np.float32]]:
        model, x = self._model(work).eval(), self._pictures(work)

        def answers_to(x: torch.Tensor) -> torch.Tensor:
            with self._autocast():
                logits = model(x)
            return logits.float() if work.embeds else torch.softmax(logits.float(), 1)

        function = self._as_asked(answers_to)
        # Compiled functions aren't meant to run in inference mode.
        mode = torch.inference_mode if self._compile is None and not self._one_graph else torch.no_grad
        answers: list[torch.Tensor] = []

        def forward() -> None:
            answers[:] = [function(x)]

        with torch.no_grad():
            run = captured(forward) if self._one_graph else forward

        def answer() -> npt.NDArray[np.float32]:
            with mode():
                if self._compile == "reduce-overhead":
                    torch.compiler.cudagraph_mark_step_begin()
                run()
                return np.asarray(answers[0].cpu().numpy())

        return answer

    def milliseconds(self, step: Callable[[], object], steps: int) -> float:
        if not self._on_card:
            started = time.perf_counter()
            for _ in range(steps):
                step()
            return 1000 * (time.perf_counter() - started)
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(steps):
            step()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)

    def _pictures(self, work: Work) -> torch.Tensor:
        return (
            torch.from_numpy(work.pictures).permute(0, 3, 1, 2).contiguous(memory_format=self._format).to(self._device)
        )

    def _model(self, work: Work) -> nn.Module:
        model = build(work, channels_last=self._format == torch.channels_last)
        return model.to(self._device, memory_format=self._format)

    def _as_asked(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        if self._compile is None:
            return function
        torch.compiler.reset()  # after other shapes this one would be compiled for any shape
        compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(function, mode=self._compile, dynamic=False)
        return compiled

    def _optimizer(self, work: Work, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """The fused kernels are PyTorch's fastest."""
        rule = work.optimizer
        groups = parameter_groups(model, rule.weight_decay)
        if isinstance(rule, Momentum):
            return torch.optim.SGD(groups, lr=learning_rate, momentum=rule.momentum, fused=True)
        return torch.optim.AdamW(
            groups,
            lr=learning_rate,
            betas=(rule.beta1, rule.beta2),
            eps=rule.epsilon,
            fused=True,
            capturable=self._on_card,
        )


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """For an optimizer: weights decay; biases, and batch norm's scale and shift, don't."""
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            decays = name == "weight" and not isinstance(module, nn.modules.batchnorm._BatchNorm)
            (decaying if decays else others).append(parameter)
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def captured(function: Callable[[], object], forget: Callable[[], object] = lambda: None) -> Callable[[], object]:
    """Capture ``function`` as a CUDA graph, after a few runs and a call of ``forget`` to clear up after them."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP_STEPS):
            function()
    torch.cuda.current_stream().wait_stream(aside)
    forget()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    play: Callable[[], object] = graph.replay
    return play


class Neurons(nn.Module):
    """Neurons that each see one whole map."""

    def __init__(self, per_kernel: int, rows: int, columns: int, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(per_kernel, maps, rows, columns))
        self.bias = nn.Parameter(torch.empty(per_kernel, maps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(self.weight) == 1:
            return (x * self.weight).sum((2, 3)) + self.bias
        return (torch.einsum("nchw,mchw->nmc", x, self.weight) + self.bias).flatten(1)


class Block(nn.Module):
    """A residual block. The smaller summand is padded with zeros at the end of maps, rows and columns."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.activation = branch, shortcut, activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = self.branch(x), self.shortcut(x)
        shape = [max(sides) for sides in zip(one.shape[1:], other.shape[1:], strict=True)]
        total: torch.Tensor = self.activation(padded(one, shape) + padded(other, shape))
        return total


def padded(maps: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Maps (N, C, H, W) with zeros up to ``shape``, (C, H, W)."""
    if list(maps.shape[1:]) == shape:
        return maps
    missing = [wanted - own for wanted, own in zip(shape, maps.shape[1:], strict=True)]
    return functional.pad(maps, (0, missing[2], 0, missing[1], 0, missing[0]))


class UnitLengths(nn.Module):
    """Rows of length 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.normalize(x)


class Rows(nn.Module):
    """Flatten (N, C, H, W) to a row for each photo, in the order of (H, W, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


ACTIVATIONS: dict[str, Callable[[float], nn.Module]] = {
    "identity": lambda slope: nn.Identity(),
    "sigmoid": lambda slope: nn.Sigmoid(),
    "tanh": lambda slope: nn.Tanh(),
    "relu": lambda slope: nn.ReLU(inplace=True),
    "leaky_relu": lambda slope: nn.LeakyReLU(slope, inplace=True),
    "gelu": lambda slope: nn.GELU(),
}


def build(work: Work, *, channels_last: bool) -> nn.Sequential:
    """Build the network, with its weights."""
    weights = {name: torch.from_numpy(array) for name, array in work.weights.items()}
    return in_order(work.stages, weights, channels_last=channels_last)


def in_order(stages: Sequence[Stage], weights: dict[str, torch.Tensor], *, channels_last: bool) -> nn.Sequential:
    """The modules of some layers, whose weights are among these."""
    modules: list[nn.Module] = []
    for stage in stages:
        start = f"{stage.name}."
        own = {name.removeprefix(start): array for name, array in weights.items() if name.startswith(start)}
        modules += modules_of(stage, own, channels_last=channels_last)
    return nn.Sequential(*modules)


def modules_of(stage: Stage, weights: dict[str, torch.Tensor], *, channels_last: bool) -> list[nn.Module]:
    """The modules of one layer, in order."""
    layer, shape = stage.layer, stage.shape
    match layer:
        case Conv():
            conv = nn.Conv2d(shape[2], layer.kernels, layer.size, layer.stride, layer.padding)
            load(conv, weight=weights["weight"].permute(0, 3, 1, 2), bias=weights["bias"])
            pool = [nn.MaxPool2d(layer.pool)] if isinstance(layer.pool, int) else []
            return [conv, ACTIVATIONS[layer.activation](layer.slope), *pool]
        case Activate():
            return [ACTIVATIONS[layer.name](layer.slope)]
        case Neuron():
            neurons = Neurons(layer.per_kernel, *shape)
            load(neurons, weight=weights["weight"].permute(0, 3, 1, 2), bias=weights["bias"])
            return [neurons]
        case Dense():
            weight = weights["weight"]
            dense = nn.Linear(weight.shape[1], weight.shape[0])
            if len(shape) == 1 or channels_last:
                load(dense, weight=weight, bias=weights["bias"])
                return [dense] if len(shape) == 1 else [Rows(), dense]
            # Either format flattens in the order that needs no copy.
            by_map = weight.reshape(-1, *shape).permute(0, 3, 1, 2).flatten(1)
            load(dense, weight=by_map, bias=weights["bias"])
            return [nn.Flatten(), dense]
        case Dropout():
            return [nn.Dropout(layer.rate)]
        case BatchNorm():
            kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
            norm = kind(shape[-1], eps=layer.epsilon, momentum=layer.momentum)
            load(norm, weight=weights["scale"], bias=weights["shift"])
            return [norm]
        case Pool():
            pool_kind = nn.MaxPool2d if layer.kind == "max" else nn.AvgPool2d
            size = shape[:2] if layer.size == "global" else layer.size
            return [pool_kind(size, layer.stride)]
        case Residual():
            branch, shortcut = (
                in_order(
                    [inner for inner in stage.inner if (inner.name == SHORTCUT) == is_shortcut],
                    weights,
                    channels_last=channels_last,
                )
                for is_shortcut in (False, True)
            )
            return [Block(branch, shortcut, ACTIVATIONS[layer.activation](layer.slope))]
        case UnitLength():
            return [UnitLengths()]
        case _:
            raise NotImplementedError(f"{stage.name}: {layer}")


def load(module: nn.Module, *, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Set a module's parameters."""
    with torch.no_grad():
        module.get_parameter("weight").copy_(weight)
        module.get_parameter("bias").copy_(bias)


if __name__ == "__main__":
    serve(lambda options: Worker(Torch(options)))
