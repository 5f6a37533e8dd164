"""Where a network gets fake quantizers: where the file that is made of it will get real ones.

Rules, which are those of ONNX Runtime's QDQ quantizer and of AI Edge Quantizer:
    1. An operator that computes with integers (convolution, dense, sum, product, concatenation,
       matrix product, pooling, look-up) has its inputs and its output quantized.
    2. ReLU and ReLU6 are part of the operator before them: what is between is not quantized. Not so
       with symmetric activations, where the range cannot do the work of ReLU.
    3. What only moves values (reshape, flatten, maximum of neighbours) keeps the range of its input.
    4. All other operators stay in float; their output is quantized where rule 1 asks for it.

The network is traced with torch.fx. The traced graph holds the same parameters as the network, so
that what is trained in it is trained in the network, which itself is never changed otherwise.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from trimtab_compressor.passes.fake_quantize import (
    WEIGHT_LAYERS,
    ActivationQuantizer,
    BatchNorm,
    Phase,
    QuantizedLayer,
    Scheme,
)
from trimtab_protocol.errors import ModelError


class Kind(Enum):
    """What a quantizer does with an operator."""

    INTEGER = "integer"  # rule 1
    RELU = "relu"  # rule 2
    MOVE = "move"  # rule 3
    NOTHING = "nothing"  # gone from a file: dropout, identity
    FLOAT = "float"  # rule 4


_MODULES: dict[Kind, tuple[type[nn.Module], ...]] = {
    Kind.RELU: (nn.ReLU, nn.ReLU6),
    Kind.NOTHING: (
        *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
        *(nn.AlphaDropout, nn.FeatureAlphaDropout),
    ),
    Kind.MOVE: (
        *(nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
        *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    ),
    Kind.INTEGER: (
        *(*WEIGHT_LAYERS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Embedding),
        *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, BatchNorm),
    ),
}
_FUNCTIONS: dict[Kind, tuple[Callable[..., Any], ...]] = {
    Kind.RELU: (functional.relu, functional.relu6, torch.relu, torch.relu_),
    Kind.NOTHING: (
        *(functional.dropout, functional.dropout1d, functional.dropout2d, functional.alpha_dropout),
    ),
    Kind.MOVE: (
        *(torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze),
        *(torch.unsqueeze, torch.swapaxes, torch.movedim, operator.getitem),
        *(functional.max_pool1d, functional.max_pool2d, torch.max_pool1d, torch.max_pool2d),
    ),
    Kind.INTEGER: (
        *(operator.add, operator.iadd, operator.mul, operator.imul, operator.sub, operator.isub),
        *(torch.add, torch.mul, torch.sub, torch.cat, torch.concat, torch.stack),
        *(torch.matmul, torch.bmm, operator.matmul, torch.mean),
        *(functional.linear, functional.conv1d, functional.conv2d, functional.embedding),
        *(functional.avg_pool1d, functional.avg_pool2d),
        *(functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d),
    ),
}
_METHODS: dict[Kind, tuple[str, ...]] = {
    Kind.RELU: ("relu", "relu_"),
    Kind.NOTHING: ("contiguous", "clone"),
    Kind.MOVE: (
        *("flatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze"),
        *("swapaxes", "movedim", "expand", "chunk", "split"),
    ),
    Kind.INTEGER: ("add", "add_", "mul", "mul_", "sub", "sub_", "matmul", "bmm", "mean"),
}
_LOOK_UPS = (nn.Embedding, functional.embedding)
_SIX = (nn.ReLU6, functional.relu6)


@dataclass(frozen=True)
class QuantizedGraph:
    """A network with fake quantizers in it.

    Args:
        module: To be trained; shares its parameters with the network that it was made of.
        layers: Its layers with rounded weights, by the layer's name in the network.
        activations: Its quantizers of activations, by the name of what they stand behind.
    """

    module: fx.GraphModule
    layers: dict[str, QuantizedLayer]
    activations: dict[str, ActivationQuantizer]

    def enter(self, phase: Phase) -> None:
        """Let all quantizers do this; weights are rounded in Phase.ROUND only."""
        for quantizer in self.activations.values():
            quantizer.phase = phase
        for layer in self.layers.values():
            layer.is_rounding = phase is Phase.ROUND

    def freeze(self) -> None:
        """From now on, BatchNorm statistics and moving averages stay as they are."""
        for quantizer in self.activations.values():
            quantizer.is_frozen = True
        for layer in self.layers.values():
            layer.is_frozen = True
        for module in self.module.modules():
            if isinstance(module, BatchNorm):
                module.eval()


def insert_quantizers(model: nn.Module, scheme: Scheme) -> QuantizedGraph:
    """Trace a network and put quantizers in; the graph begins in Phase.WATCH.

    Args:
        model: Its parameters are shared; it is not changed.
        scheme: Which integers there will be.

    Raises:
        ModelError: The network cannot be traced; the message names the module.
    """
    traced = trace(model)
    layers = _wrap_layers(traced, scheme)
    activations = _wrap_activations(traced, scheme)
    if not layers:
        raise ModelError(
            "quantize_aware: the network has no convolution and no dense layer of torch.nn, so there "
            "is nothing to train with rounded weights; quantize it after training"
        )
    traced.delete_all_unused_submodules()
    traced.recompile()
    graph = QuantizedGraph(traced, layers, activations)
    graph.enter(Phase.WATCH)
    return graph


class _Tracer(fx.Tracer):
    """Remembers the innermost module in which tracing failed."""

    failed: str | None = None

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or f"{self.path_of_module(m)} ({type(m).__name__})"
            raise


def trace(model: nn.Module) -> fx.GraphModule:
    """The network as a graph of operators, with the same parameters.

    Raises:
        ModelError: It decides in Python by what it computes, or does something else that cannot be
            written down as a graph.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(model.eval())
    except Exception as error:  # the task's own code may raise anything; it is our input
        where = tracer.failed or f"the network itself ({type(model).__name__})"
        raise ModelError(
            f"quantize_aware: module {where} cannot be traced: {str(error).splitlines()[0]}; take "
            "decisions that depend on values out of its forward, or quantize after training"
        ) from error
    return fx.GraphModule(model, graph)


def _wrap_layers(traced: fx.GraphModule, scheme: Scheme) -> dict[str, QuantizedLayer]:
    """Put each layer with a weight, and the BatchNorm behind it, into a QuantizedLayer."""
    modules = dict(traced.named_modules())
    calls: dict[str, int] = {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    wrapped: dict[str, QuantizedLayer] = {}
    for node in list(traced.graph.nodes):
        name = str(node.target)
        if node.op != "call_module" or name in wrapped:
            continue
        layer = modules[name]
        if not isinstance(layer, WEIGHT_LAYERS):
            continue
        norm_node = _norm_behind(node, modules, calls)
        norm = None if norm_node is None else modules[str(norm_node.target)]
        assert norm is None or isinstance(norm, BatchNorm)
        wrapped[name] = QuantizedLayer(layer, norm, scheme)
        traced.set_submodule(name, wrapped[name])
        if norm_node is not None:
            norm_node.replace_all_uses_with(node)
            traced.graph.erase_node(norm_node)
    return wrapped


def _norm_behind(
    node: fx.Node, modules: dict[str, nn.Module], calls: dict[str, int]
) -> fx.Node | None:
    """The BatchNorm that a file will have folded into this layer."""
    user = _only_user(node, modules)
    if user is None or user.op != "call_module" or calls[str(node.target)] > 1:
        return None
    norm = modules[str(user.target)]
    is_foldable = isinstance(norm, BatchNorm) and norm.running_var is not None
    return user if is_foldable and calls[str(user.target)] == 1 else None


def _wrap_activations(traced: fx.GraphModule, scheme: Scheme) -> dict[str, ActivationQuantizer]:
    modules = dict(traced.named_modules())
    quantizers: dict[str, ActivationQuantizer] = {}
    for node in list(traced.graph.nodes):
        if not _is_quantized(node, modules, scheme):
            continue
        quantizer = ActivationQuantizer(scheme, _ceiling(node, modules))
        label = str(node.target) if node.op == "call_module" else node.name
        quantizers[node.name if label in quantizers else label] = quantizer
        name = f"quantize_{node.name}"
        traced.add_submodule(name, quantizer)
        with traced.graph.inserting_after(node):
            rounded = traced.graph.call_module(name, (node,))
        node.replace_all_uses_with(
            rounded, delete_user_cb=lambda user, own=rounded: user is not own
        )
    return quantizers


def _is_quantized(node: fx.Node, modules: dict[str, nn.Module], scheme: Scheme) -> bool:
    kind = _kind(node, modules)
    if kind in (Kind.MOVE, Kind.NOTHING) or node.op in ("output", "get_attr"):
        return False
    if kind is Kind.FLOAT:
        return _feeds_integers(node, modules)
    if kind is Kind.INTEGER and not scheme.is_symmetric:
        user = _only_user(node, modules)
        return user is None or _kind(user, modules) is not Kind.RELU
    return True


def _feeds_integers(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    for user in node.users:
        kind = _kind(user, modules)
        if kind in (Kind.MOVE, Kind.NOTHING):
            if _feeds_integers(user, modules):
                return True
        elif kind in (Kind.INTEGER, Kind.RELU) and _operation(user, modules) not in _LOOK_UPS:
            return True
    return False


def _only_user(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The one operator that uses a value, behind what a file drops."""
    users = list(node.users)
    if len(users) != 1:
        return None
    if _kind(users[0], modules) is Kind.NOTHING:
        return _only_user(users[0], modules)
    return users[0]


def _kind(node: fx.Node, modules: dict[str, nn.Module]) -> Kind:
    if node.op == "call_module":
        module = modules[str(node.target)]
        if isinstance(module, QuantizedLayer):
            return Kind.INTEGER
        found = [kind for kind, types in _MODULES.items() if isinstance(module, types)]
    elif node.op == "call_function":
        found = [kind for kind, functions in _FUNCTIONS.items() if node.target in functions]
    elif node.op == "call_method":
        found = [kind for kind, names in _METHODS.items() if node.target in names]
    else:
        found = []
    return found[0] if found else Kind.FLOAT


def _operation(node: fx.Node, modules: dict[str, nn.Module]) -> object:
    """The module's type, the function, or the method's name."""
    return type(modules[str(node.target)]) if node.op == "call_module" else node.target


def _ceiling(node: fx.Node, modules: dict[str, nn.Module]) -> float | None:
    return 6.0 if _operation(node, modules) in _SIX else None
