"""`recipes`: what can be done to a model, in general or to this one on that device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_protocol.errors import ConfigError

if TYPE_CHECKING:
    from trimtab_compressor.device_kinds import DeviceKind
    from trimtab_compressor.recommend import Subject

HELP = "list the recipes, gentlest first, or rank them for a model and a device class"

HOST_CLASS = "host"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, class, output."""
    parser.add_argument(
        "--for", dest="model", type=Path, metavar="MODEL", help=".onnx, .tflite or a task's .py"
    )
    parser.add_argument(
        "--class",
        dest="device_class",
        default="generic",
        metavar="CLASS",
        help="a device class, a kind (x86-avx2, x86-vnni, pi3, pi4, pi5, orin-cpu, jetson-gpu) or "
        "'host'",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> None:
    """Print the table, or the ranking.

    Raises:
        ConfigError: The model or the class is wrong.
        ModelError: The model cannot be read.
    """
    from trimtab_compressor.recipes import RECIPES  # noqa: PLC0415 - keeps start fast
    from trimtab_compressor.show import print_recipes  # noqa: PLC0415

    if options.model is None:
        if options.json:
            raise ConfigError("--json ranks recipes for a model; give --for MODEL")
        print_recipes(RECIPES)
        return

    from trimtab_compressor.recommend import recommend  # noqa: PLC0415
    from trimtab_compressor.show_recommendations import print_recommendations  # noqa: PLC0415

    device = find_kind(options.device_class)
    found = recommend(read_subject(options.model), RECIPES.values(), device, options.device_class)
    if options.json:
        print(found.model_dump_json(indent=2))
    else:
        print_recommendations(found)


def find_kind(device_class: str) -> DeviceKind:
    """What is known of a class.

    Raises:
        ConfigError: It is no name.
    """
    from trimtab_compressor.commands.options import read_name  # noqa: PLC0415
    from trimtab_compressor.device_kinds import kind_of_class, kind_of_cpu  # noqa: PLC0415
    from trimtab_compressor.evaluate import CPU_FILE  # noqa: PLC0415

    if device_class == HOST_CLASS:
        return kind_of_cpu(CPU_FILE.read_text() if CPU_FILE.is_file() else "")
    return kind_of_class(read_name(device_class, "--class"))


def read_subject(path: Path) -> Subject:
    """A file as it is, a task by the export of its untrained network.

    Raises:
        ConfigError: There is no such file, or the task is wrong.
        ModelError: The model cannot be read, or the network cannot be exported.
    """
    from trimtab_compressor.inspection.inspect_model import inspect_file, inspect_task  # noqa: PLC0415
    from trimtab_compressor.recommend import Subject  # noqa: PLC0415

    if path.suffix == ".py":
        return Subject(inspect_task(path), is_task=True)
    return Subject(inspect_file(path), is_task=False)
