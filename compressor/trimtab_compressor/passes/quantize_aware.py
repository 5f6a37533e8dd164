"""Quantization-aware training: the network learns while it is rounded as its file will be.

    1. Fake quantizers go in where the file will have real ones (`quantized_graph`).
    2. The calibration samples pass once in float and give the first ranges.
    3. Training with the straight-through gradient; late in it, BatchNorm and ranges are frozen.
    4. The quantizers go: the network that came comes back, with weights that bear rounding, and the
       ranges that its activations were trained with go beside it.

Source: Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", CVPR 2018; see `fake_quantize` for the formulas.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.arrays import FloatArray
from trimtab_compressor.learned_ranges import (
    PROBE_SAMPLES,
    Fingerprint,
    LearnedRange,
    take_fingerprint,
)
from trimtab_compressor.passes.distillation_losses import dkd_loss, soft_loss
from trimtab_compressor.passes.fake_quantize import Phase, Scheme
from trimtab_compressor.passes.quantized_graph import QuantizedGraph, insert_quantizers
from trimtab_compressor.passes.stage import Network, NetworkStage
from trimtab_compressor.passes.train import label_loss, schedule
from trimtab_compressor.passes.training_loop import AfterStep, Loss, predict, run_epochs
from trimtab_compressor.specs.quantize_aware import QuantizeAware
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ModelError


def quantize_aware(stage: NetworkStage[QuantizeAware]) -> Network:
    """Train with quantization in the loop, then take it out.

    Returns:
        The float network, and in the findings the accuracy that it had while it was rounded: the file
        that a static quantization makes of it should have the same.

    Raises:
        ModelError: The network cannot be traced, or training diverged.
    """
    spec, task, model = stage.spec, stage.task, stage.model
    graph = insert_quantizers(model, scheme_of(spec))
    _watch_calibration(graph, stage)
    training = task.training
    peak = training.fine_tune_learning_rate * spec.learning_rate_factor
    run_epochs(
        graph.module,
        task.train.inputs,
        _choose_loss(stage),
        schedule(training, spec.epochs, peak),
        after_step=freeze_late(graph, spec.freeze_from),
    )
    answers = predict(graph.module, task.test.inputs).numpy()
    accuracy = top1_accuracy(answers, task.test.labels)
    findings = {"fake_quantized_accuracy": round(accuracy, 6)}
    ranges = _collect_ranges(graph, task.calibration)
    return Network(model.eval(), stage.width, findings, ranges)


def scheme_of(spec: QuantizeAware) -> Scheme:
    """Which integers there will be."""
    return Scheme(
        is_symmetric=spec.is_symmetric,
        is_per_channel=spec.is_per_channel,
        is_range_reduced=spec.is_range_reduced,
        is_weight_unsigned=spec.is_weight_unsigned,
        is_learned=spec.activation_ranges == "learned",
    )


def freeze_late(graph: QuantizedGraph, freeze_from: float) -> AfterStep:
    """A callback that freezes the graph once this share of the steps is done."""

    def after_step(done: int, steps: int) -> None:
        if done >= freeze_from * steps:
            graph.freeze()

    return after_step


def _watch_calibration(graph: QuantizedGraph, stage: NetworkStage[QuantizeAware]) -> None:
    """Find the first ranges, and make sure that the graph is the network.

    Raises:
        ModelError: It computes something else.
    """
    samples = stage.task.calibration
    expected = predict(stage.model, samples)
    found = predict(graph.module, samples)
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        raise ModelError(
            "quantize_aware: the traced network does not compute what the network computes (they "
            f"differ by up to {float((found - expected).abs().max()):.3g}); its forward depends on "
            "something that tracing cannot see, such as a counter; quantize after training"
        )
    graph.enter(Phase.ROUND)


def _collect_ranges(graph: QuantizedGraph, samples: FloatArray) -> tuple[LearnedRange, ...]:
    """The ranges, each with the fingerprint of the float tensor that it is for."""
    probe = samples[:PROBE_SAMPLES]
    used = {name: row for name, row in graph.activations.items() if row.is_used}
    seen: dict[str, Fingerprint] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen[name] = take_fingerprint(arguments[0].numpy(), len(probe))

        return hook

    hooks = [row.register_forward_pre_hook(look(name)) for name, row in used.items()]
    graph.enter(Phase.FLOAT)
    predict(graph.module, probe)
    graph.enter(Phase.ROUND)
    for hook in hooks:
        hook.remove()
    return tuple(
        LearnedRange(name, float(low.detach()), float(high.detach()), seen[name])
        for name, (low, high) in ((name, row.bounds()) for name, row in used.items())
    )


def _choose_loss(stage: NetworkStage[QuantizeAware]) -> Loss:
    spec, task = stage.spec, stage.task
    hard = label_loss(task)
    if spec.teacher == "none":
        return hard
    answers = predict(stage.base, task.train.inputs)
    if spec.teacher_loss == "decoupled":
        return _decoupled(spec, task, answers, hard)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        soft = soft_loss(logits, answers[rows], spec.temperature)
        return spec.teacher_weight * soft + (1 - spec.teacher_weight) * hard(logits, rows)

    return loss


def _decoupled(spec: QuantizeAware, task: Task, answers: Tensor, hard: Loss) -> Loss:
    """The labels' loss and DKD with alpha 1; answers (n, classes)."""
    labels = torch.from_numpy(task.train.labels).long()

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        taught = dkd_loss(
            logits,
            answers[rows],
            labels[rows],
            temperature=spec.temperature,
            alpha=1.0,
            beta=spec.teacher_weight,
        )
        return hard(logits, rows) + taught

    return loss
