"""Arguments that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_protocol.errors import ConfigError, ErrorCode

if TYPE_CHECKING:
    from trimtab_compressor.cache import Cache
    from trimtab_compressor.client import HttpControlPlane
    from trimtab_compressor.recipe_book import RecipeBook
    from trimtab_protocol.manifest import ModelFormat

FORMATS = ("onnx", "tflite", "both")


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """`--recipe`, `--recipe-file`, `--format`, `--cache`."""
    parser.add_argument(
        "--recipe",
        action="append",
        default=[],
        metavar="NAME",
        help="repeatable; all shipped ones if neither this nor --recipe-file is given",
    )
    parser.add_argument(
        "--recipe-file",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="recipes of your own, .toml or .py; repeatable",
    )
    parser.add_argument("--format", choices=FORMATS, default="both")
    parser.add_argument("--cache", type=Path, help="default: TRIMTAB_CACHE, else ~/.cache/trimtab")


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """`--url`, `--token`."""
    parser.add_argument("--url", help="of the control plane; default: TRIMTAB_URL")
    parser.add_argument("--token", help="default: TRIMTAB_TOKEN")


def read_formats(choice: str) -> tuple[ModelFormat, ...]:
    """The formats that `--format` stands for, the preferred first."""
    from trimtab_protocol.manifest import ModelFormat  # noqa: PLC0415 - keeps start fast

    return tuple(ModelFormat) if choice == "both" else (ModelFormat(choice),)


def read_recipes(options: argparse.Namespace) -> tuple[RecipeBook, tuple[str, ...]]:
    """What `--recipe` and `--recipe-file` stand for: all recipes that have a name, and those wanted.

    Returns:
        The shipped recipes with those of the files at their end; the wanted names, none for all.

    Raises:
        ConfigError: A file is wrong, or a name in it is taken.
    """
    from trimtab_compressor.recipe_file import read_book  # noqa: PLC0415 - keeps start fast

    book, names = read_book(options.recipe_file)
    return book, (*options.recipe, *names)


def open_cache(folder: Path | None) -> Cache:
    """The cache that `--cache` stands for.

    Raises:
        ConfigError: It cannot be written.
    """
    from trimtab_compressor.cache import Cache, default_cache_folder  # noqa: PLC0415

    return Cache(folder or default_cache_folder())


def open_control_plane(options: argparse.Namespace) -> HttpControlPlane:
    """The control plane that `--url` and `--token` stand for.

    Raises:
        ConfigError: One of them is missing.
    """
    from trimtab_compressor.client import HttpControlPlane  # noqa: PLC0415 - keeps start fast
    from trimtab_compressor.show import tell  # noqa: PLC0415

    url = _given(options.url, "--url", "TRIMTAB_URL")
    token = _given(options.token, "--token", "TRIMTAB_TOKEN")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url '{url}' must begin with http:// or https://")
    return HttpControlPlane(url, token, report=tell)


def read_name(text: str, option: str) -> str:
    """A name that may stand in topics and file names.

    Raises:
        ConfigError: It may not.
    """
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - keeps start fast

    from trimtab_protocol.base import Name  # noqa: PLC0415

    try:
        return TypeAdapter(Name).validate_python(text)
    except ValidationError as error:
        raise ConfigError(
            f"{option} '{text}' is no name; use lowercase letters, digits, '.', '_' and '-', at "
            "most 64"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a result.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from error


def _given(value: str | None, option: str, variable: str) -> str:
    found = value or os.environ.get(variable, "")
    if not found:
        raise ConfigError(
            f"{option} is missing; give it or set {variable}", code=ErrorCode.CONFIG_MISSING
        )
    return found
