"""`recipes`: what can be done to a model."""

from __future__ import annotations

import argparse

HELP = "list the recipes, gentlest first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""
    del parser


def run(options: argparse.Namespace) -> None:
    """Print the table."""
    from trimtab_compressor.recipes import RECIPES  # noqa: PLC0415 - keeps start fast
    from trimtab_compressor.show import print_recipes  # noqa: PLC0415

    del options
    print_recipes(RECIPES)
