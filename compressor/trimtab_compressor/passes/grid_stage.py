"""What the passes share that know the grid of the quantizer after them."""

from __future__ import annotations

from typing import TypeVar

from trimtab_compressor.layers.grid import WeightGrid
from trimtab_compressor.layers.port import LayerGraph, Samples
from trimtab_compressor.passes.stage import FileStage
from trimtab_compressor.runtimes.table import format_of
from trimtab_compressor.specs.rescue import GridSpec
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import ModelFormat

GridSpecT = TypeVar("GridSpecT", bound=GridSpec)


def grid_of(stage: FileStage[GridSpecT]) -> WeightGrid:
    """The grid that a stage asks for.

    Raises:
        ConfigError: TFLite quantizers know no reduced range.
    """
    spec = stage.spec
    if spec.is_range_reduced and format_of(stage.source) is ModelFormat.TFLITE:
        raise ConfigError(
            f"{spec.pass_name}: TFLite has no reduced range; leave is_range_reduced out"
        )
    return WeightGrid(spec.bits, spec.is_per_channel, spec.is_range_reduced)


def check_excluded(spec: GridSpec, graph: LayerGraph) -> None:
    """Refuse layers that are not there.

    Raises:
        ConfigError: The message lists the layers that are.
    """
    names = [layer.name for layer in graph.layers]
    for name in spec.excluded:
        if name not in names:
            raise ConfigError(
                f"{spec.pass_name}: excluded layer '{name}' is not in the model; its layers are "
                f"{', '.join(names) or 'none'}"
            )


def limit_samples(samples: Samples, count: int) -> Samples:
    """The first samples, of every input."""
    return {name: rows[:count] for name, rows in samples.items()}
