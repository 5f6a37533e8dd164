"""NNCF's post-training quantization with accuracy control, ONNX backend, as it comes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import nncf
import onnx
from worker import Job, find_hits, serve


def quantize(job: Job) -> str:
    """Quantize, and let NNCF give layers back until the drop is allowed."""
    name, model = job.input_name, onnx.load(job.model)
    calibration = nncf.Dataset(list(job.calibration), lambda row: {name: row[None]})
    rows = list(range(len(job.inputs)))
    validation = nncf.Dataset(rows, lambda row: {name: job.inputs[row][None]})

    def validate(candidate: onnx.ModelProto, items: Iterable[Any]) -> tuple[float, list[float]]:
        picked = [int(row) for row in items]
        hits = find_hits(candidate.SerializeToString(), job.inputs[picked], job.labels[picked])
        return sum(hits) / len(hits), hits

    quantized = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=calibration,
        validation_dataset=validation,
        validation_fn=validate,
        max_drop=job.max_drop,
        drop_type=nncf.DropType.ABSOLUTE,
        subset_size=len(job.calibration),
    )
    onnx.save(quantized, job.target)
    return f"accuracy controlled over {len(rows)} samples"


if __name__ == "__main__":
    serve(quantize)
