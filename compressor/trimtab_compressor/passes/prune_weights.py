"""Weight pruning: the smallest weights become zero and stay zero.

The network keeps its shapes, so every operation is computed as before: ONNX Runtime and LiteRT
multiply by the zeros. What becomes smaller is the file once it is compressed, which is why the
findings carry the compressed bytes and a note that says so.
"""

from __future__ import annotations

import statistics

from torch import Tensor, nn

from trimtab_compressor.compressed import COMPRESSOR, compressed_bytes
from trimtab_compressor.passes.prune_masks import (
    Tightening,
    apply_masks,
    pattern_masks,
    smallest_masks,
)
from trimtab_compressor.passes.prune_steps import fine_tune, tuning_loss, walk_steps
from trimtab_compressor.passes.stage import Findings, Network, NetworkStage
from trimtab_compressor.passes.training_loop import Loss
from trimtab_compressor.specs.pruning import PruneWeights
from trimtab_compressor.structure import mark_masked
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError

NOTE = (
    "pruned weights are zeros in a file of the same size: smaller to transfer where the transfer "
    "compresses it, not faster, because the runtime computes the zeros too"
)
"""For people; `run` prints it. No runtime was measured to profit (docs/techniques.md, Pruning)."""

KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def prune_weights(stage: NetworkStage[PruneWeights]) -> Network:
    """Set weights to zero in steps, and fine-tune with the zeros held.

    Raises:
        ConfigError: A layer that the task ignores does not exist.
        ModelError: No layer is left to prune, a layer lost all its weights, or too much accuracy was
            lost.
    """
    spec, task = stage.spec, stage.task
    names = choose_layers(stage.model, task, spec)
    loss = tuning_loss(stage)

    def take_step(model: nn.Module, step: int) -> str:
        before, after = (_ratio(spec) * end / spec.steps for end in (step - 1, step))
        weights = weights_of(model, names)
        _prune_step(model, weights, stage, loss, (before, after))
        _check_alive(weights)
        return f"{after:.0%}"

    walked = walk_steps(stage, spec.steps, take_step)
    findings = {
        **walked.findings,
        "ratio_kept": round(_ratio(spec) * walked.kept / spec.steps, 4),
        **_describe(stage.model, walked.module, names),
    }
    return Network(walked.module, stage.width, findings)


def _prune_step(
    model: nn.Module,
    weights: dict[str, Tensor],
    stage: NetworkStage[PruneWeights],
    loss: Loss,
    ratios: tuple[float, float],
) -> None:
    """From one ratio to the next: before fine-tuning, or by the schedule in its course."""
    spec, task = stage.spec, stage.task
    is_global = spec.scope == "global"
    layers = dict(model.named_modules())
    is_trained = spec.is_fine_tuned and task.training.fine_tune_epochs > 0
    if spec.schedule == "cubic" and spec.pattern is None and is_trained:
        fine_tune(model, task, loss, Tightening(weights, *ratios, is_global=is_global))
    if spec.pattern is not None:
        masks = pattern_masks(weights, *spec.kept_of())
    else:
        masks = smallest_masks(weights, ratios[1], is_global=is_global)
    apply_masks(weights, masks)
    mark_masked(layers[name] for name in weights)
    if is_trained and (spec.schedule == "one_shot" or spec.pattern is not None):
        fine_tune(model, task, loss)


def choose_layers(model: nn.Module, task: Task, spec: PruneWeights) -> list[str]:
    """Names of the layers whose weights may go.

    Raises:
        ConfigError: A layer that the task ignores does not exist.
        ModelError: None is left.
    """
    layers = dict(model.named_modules())
    missing = [name for name in task.ignored_layers if name not in layers]
    if missing:
        raise ConfigError(
            f"task {task.name}: ignored_layers names '{missing[0]}', the network has "
            f"{', '.join(name for name in layers if name)}"
        )
    found = [name for name, layer in layers.items() if isinstance(layer, KINDS)]
    left_out = {name for row in task.ignored_layers for name in found if _is_in(name, row)}
    left_out |= set() if spec.is_first_pruned else set(found[:1])
    left_out |= set() if spec.is_last_pruned else set(found[-1:])
    chosen = [
        name
        for name in found
        if name not in left_out and _fits(layers[name], spec.min_layer_weights, spec.kept_of()[1])
    ]
    if not chosen:
        raise ModelError(
            "prune_weights removed nothing: of "
            f"{len(found)} layers none is neither first, last, ignored, below "
            f"min_layer_weights={spec.min_layer_weights} nor at odds with the pattern; allow more "
            "(is_first_pruned, is_last_pruned, a smaller min_layer_weights)",
            code=ErrorCode.MODEL_UNREADABLE,
        )
    return chosen


def _is_in(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def _fits(layer: nn.Module, least: int, of: int) -> bool:
    assert isinstance(layer.weight, Tensor)
    return layer.weight.numel() >= max(least, 1) and layer.weight.shape[1] % of == 0


def weights_of(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """The weights of these layers, by layer; the network's own, not copies."""
    layers = dict(model.named_modules())
    found = {}
    for name in names:
        weight = layers[name].weight
        assert isinstance(weight, Tensor)
        found[name] = weight
    return found


def _ratio(spec: PruneWeights) -> float:
    if spec.ratio is not None:
        return spec.ratio
    kept, of = spec.kept_of()
    return 1 - kept / of


def _check_alive(weights: dict[str, Tensor]) -> None:
    dead = [name for name, row in weights.items() if not bool(row.any())]
    if dead:
        raise ModelError(
            f"prune_weights left no weight of '{dead[0]}', so nothing passes it; use scope 'layer', "
            "a lower ratio, or name it in the task's ignored_layers",
            code=ErrorCode.MODEL_UNREADABLE,
        )


def _describe(before: nn.Module, after: nn.Module, names: list[str]) -> Findings:
    """What was reached, over all weights and by layer, and what a compressor makes of it."""
    weights = weights_of(after, names)
    shares = {name: _zero_share(row) for name, row in weights.items()}
    zeros = sum(round(shares[name] * row.numel()) for name, row in weights.items())
    everything = sum(row.numel() for row in after.parameters())
    densest, sparsest = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    return {
        "layers_pruned": len(weights),
        "zeros_of_pruned_layers": round(zeros / sum(row.numel() for row in weights.values()), 4),
        "zeros_of_network": round(zeros / everything, 4),
        "zeros_by_layer": f"{densest} {shares[densest]:.1%} to {sparsest} {shares[sparsest]:.1%}, "
        f"median {statistics.median(shares.values()):.1%}",
        "parameter_bytes": len(_parameter_bytes(after)),
        "compressor": COMPRESSOR,
        "compressed_parameter_bytes_before": compressed_bytes(_parameter_bytes(before)),
        "compressed_parameter_bytes": compressed_bytes(_parameter_bytes(after)),
        "note": NOTE,
    }


def _zero_share(weight: Tensor) -> float:
    return float((weight == 0).double().mean())


def _parameter_bytes(model: nn.Module) -> bytes:
    return b"".join(row.detach().contiguous().numpy().tobytes() for row in model.parameters())
