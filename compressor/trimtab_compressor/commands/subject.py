"""Arguments that name what is compressed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab_compressor.subject import SubjectPaths


def add_subject_arguments(parser: argparse.ArgumentParser) -> None:
    """The subject, and the samples that a model file needs."""
    parser.add_argument(
        "subject",
        type=Path,
        metavar="SUBJECT",
        help="Python file that defines TASK; or a model file, .onnx, .tflite or .keras, with --data",
    )
    samples = parser.add_argument_group(
        "for a model file",
        "DATA is a .npz with one array per input, a .npy, or a folder of either: one file per input or "
        "one per sample",
    )
    samples.add_argument("--data", type=Path, help="samples to judge candidates on")
    samples.add_argument(
        "--calibration",
        type=Path,
        metavar="DATA",
        help="samples to calibrate with; default: the first 300 of --data, at most half of them",
    )
    samples.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="one integer per sample of --data, .npy or text; without, candidates are judged by their "
        "agreement with the model that was given",
    )


def read_subject_paths(options: argparse.Namespace) -> SubjectPaths:
    """What `add_subject_arguments` was given."""
    from trimtab_compressor.subject import SubjectPaths  # noqa: PLC0415 - keeps start fast

    return SubjectPaths(
        path=options.subject,
        data=options.data,
        calibration=options.calibration,
        labels=options.labels,
    )
