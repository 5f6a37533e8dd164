"""A ranking of recipes as a table for people."""

from __future__ import annotations

from trimtab_compressor.recommend import Recommendation, Recommendations
from trimtab_compressor.show import print_facts, print_table


def print_recommendations(found: Recommendations) -> None:
    """What is known of the class, then the recipes, the best first."""
    print_facts(
        f"Recipes for {found.model} on {found.device_class}",
        [
            ("kind", f"{found.kind}: {found.kind_summary} ({found.kind_reason})"),
            (
                "channels",
                f"multiples of {found.channel_grid_float} in float, {found.channel_grid_int8} in int8 "
                "(prior)",
            ),
            (
                "figures",
                "priors of other models and machines; `run` measures accuracy, `fit` the device",
            ),
        ],
    )
    print_table(
        "Ranked by prior",
        ("rank", "recipe", "format", "speed (prior)", "size (prior)", "why"),
        [_row(row) for row in found.recommendations],
    )
    sources = dict.fromkeys(source for row in found.recommendations for source in row.sources)
    for source in sources:
        print(f"  source: {source}")


def _row(row: Recommendation) -> tuple[str, ...]:
    speed = "-"
    if row.gain_low is not None and row.gain_high is not None:
        speed = f"{row.gain_low:.2g}× to {row.gain_high:.2g}×"
    elif row.can_be_done:
        speed = "size only"
    size = f"×{row.size_ratio:.2f}" if row.size_ratio is not None else "-"
    return (
        str(row.rank) if row.rank is not None else "no",
        row.recipe,
        row.format.value,
        speed,
        size,
        row.reason,
    )
