"""`package`: make a signed artifact of a model file."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_protocol.errors import ConfigError

if TYPE_CHECKING:
    from trimtab_compressor.arrays import AnyArray
    from trimtab_protocol.budget import Budget

HELP = "make a signed artifact of a model file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, name, key, samples."""
    parser.add_argument("model", type=Path, help=".onnx or .tflite file")
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", required=True, type=int)
    parser.add_argument("--key", required=True, type=Path, help="private key file")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--task", type=Path, help="take samples from the test set of a task")
    source.add_argument(
        "--samples", type=Path, help=".npy, or .npz with one array per input; first axis counts"
    )
    parser.add_argument("--recipe", default="external", help="how the model was made")
    parser.add_argument(
        "--budget", action="append", default=[], help="METRIC=LIMIT or CLASS:METRIC=LIMIT"
    )


def run(options: argparse.Namespace) -> None:
    """Package and print where the files are.

    Raises:
        ConfigError: An argument or the samples do not fit.
        ModelError: The model does not load or run.
    """
    from trimtab_compressor.keys import read_private_key  # noqa: PLC0415 - keeps start fast
    from trimtab_compressor.package import Provenance, package_model, write_artifact  # noqa: PLC0415

    budgets = read_budgets(options.budget)
    artifact = package_model(
        options.model,
        name=options.name,
        version=options.version,
        recipe=options.recipe,
        private_key=read_private_key(options.key),
        samples=_read_samples(options),
        budgets=budgets,
        provenance=Provenance(created_at=time.time()),
    )
    model_path, manifest_path = write_artifact(artifact, options.out)
    manifest = artifact.manifest
    print(f"artifact     {manifest.ref()} ({manifest.payload.length_bytes:,} bytes)")
    print(f"model        {model_path}")
    print(f"manifest     {manifest_path}")


def read_budgets(rules: list[str]) -> dict[str, Budget]:
    """Budgets by class; rules without a class are for any ("*").

    Raises:
        ConfigError: A rule cannot be read.
    """
    from trimtab_compressor.budgets import parse_budgets  # noqa: PLC0415 - keeps start fast
    from trimtab_protocol.manifest import ANY_CLASS  # noqa: PLC0415

    if not rules:
        return {}
    classes = sorted({row.split(":", 1)[0] for row in rules if re.match(r"^[^=]*:", row)})
    return parse_budgets(rules, (*classes, ANY_CLASS))


def _read_samples(options: argparse.Namespace) -> dict[str, AnyArray] | AnyArray:
    if options.task is not None:
        from trimtab_compressor.task_file import load_task  # noqa: PLC0415 - runs user code

        return load_task(options.task).test.inputs
    return read_sample_file(options.samples)


def read_sample_file(path: Path) -> dict[str, AnyArray] | AnyArray:
    """Read arrays, never pickled objects.

    Raises:
        ConfigError: The file is missing or holds no arrays.
    """
    import numpy as np  # noqa: PLC0415 - keeps start fast

    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise ConfigError(f"samples {path} cannot be read as .npy or .npz: {error}") from error
