"""Intel Neural Compressor's tuning for ONNX: its static configurations until one is allowed."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx_neural_compressor.quantization import config, tuning
from worker import ArrayReader, Job, measure_accuracy, serve

FROM_FLOAT = 1e-9


def quantize(job: Job) -> str:
    """Try its own set of static configurations; the first within the allowed drop is taken."""
    baseline = measure_accuracy(job.model, job.inputs, job.labels)
    tried: list[float] = []

    def evaluate(model: str) -> float:
        found: float = measure_accuracy(Path(model), job.inputs, job.labels)
        tried.append(found)
        return found

    found = tuning.autotune(
        str(job.model),
        tuning.TuningConfig(
            config_set=config.StaticQuantConfig.get_config_set_for_tuning(),
            tolerable_loss=job.max_drop / max(baseline, FROM_FLOAT),  # it takes a relative one
        ),
        evaluate,
        calibration_data_reader=ArrayReader(job.input_name, job.calibration),
    )
    if found is None:
        raise RuntimeError(f"none of its {len(tried) - 1} configurations kept the accuracy")
    onnx.save(found, job.target)
    return f"configuration {len(tried) - 1} was enough"


if __name__ == "__main__":
    serve(quantize)
