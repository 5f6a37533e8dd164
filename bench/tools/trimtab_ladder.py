"""Trimtab's post-training ladder: as much as is needed to keep the accuracy, and no more."""

from __future__ import annotations

from worker import Job, serve

from trimtab_compressor.evaluate import run_file
from trimtab_compressor.passes.quantize_verified import quantize_verified
from trimtab_compressor.passes.stage import FileStage, Validation
from trimtab_compressor.runtimes.port import Kernels
from trimtab_compressor.specs.quantization import QuantizeVerified


def quantize(job: Job) -> str:
    """Climb until the drop is allowed. The host is x86 without VNNI, so weights keep to 7 bits."""
    inputs = {job.input_name: job.inputs}
    outputs = run_file(job.model, inputs, Kernels.EXACT)
    found = quantize_verified(
        FileStage(
            spec=QuantizeVerified(max_drop=100 * job.max_drop, is_range_reduced=True),
            source=job.model,
            target=job.target,
            calibration={job.input_name: job.calibration},
            validation=Validation(inputs, job.labels, outputs[0]),
        )
    )
    return ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in found.items())


if __name__ == "__main__":
    serve(quantize)
