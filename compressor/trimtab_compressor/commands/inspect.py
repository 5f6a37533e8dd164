"""`inspect`: what is in a model file, and what can be done with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from trimtab_protocol.errors import ConfigError

HELP = "say what is in a model: layers, operators, sizes, work, and what can be done with it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, shapes, output."""
    parser.add_argument("model", type=Path, help=".onnx, .tflite or a task's .py")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="INPUT=1,3,48,192",
        help="of an ONNX input whose axes are free, repeatable",
    )
    parser.add_argument("--layers", type=int, default=20, metavar="N", help="layers to list (20)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(options: argparse.Namespace) -> None:
    """Print what was found.

    Raises:
        ConfigError: There is no such file, or a shape does not fit.
        ModelError: The file cannot be read.
    """
    shapes = read_shapes(options.shape)

    from trimtab_compressor.inspection.inspect_model import inspect_file, inspect_task  # noqa: PLC0415

    is_task = options.model.suffix == ".py"
    found = inspect_task(options.model) if is_task else inspect_file(options.model, shapes)
    if options.json:
        print(found.model_dump_json(indent=2))
        return

    from trimtab_compressor.inspection.show import print_inspection  # noqa: PLC0415

    print_inspection(found, layers=options.layers)


def read_shapes(rules: list[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by input name.

    Raises:
        ConfigError: A rule cannot be read.
    """
    shapes = {}
    for rule in rules:
        name, mark, sizes = rule.rpartition("=")
        words = sizes.split(",")
        if not mark or not name or not all(word.isdecimal() and int(word) > 0 for word in words):
            raise ConfigError(f"--shape '{rule}' must look like input=1,3,48,192")
        shapes[name] = tuple(int(word) for word in words)
    return shapes
