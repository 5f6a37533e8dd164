"""`make examples`: every technique on every example task, as a table in the example's README.

    make examples                                   all of them; what is in the cache is not made again
    make examples EXAMPLE="speech"                  one of them
    make examples EXAMPLE="mnist --recipes fp32,w8a8_static --formats onnx"

A technique is a recipe file: those of examples/recipes/ are tried on every task, those of
examples/TASK/recipes/ on that task alone. Ctrl-C at any point: the next run goes on from there.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.model_tables import ModelRow, find_best, render_table, replace_block
from trimtab_compressor.arrays import digest_file, digest_key
from trimtab_compressor.build import Builder
from trimtab_compressor.cache import Cache, default_cache_folder
from trimtab_compressor.evaluate import read_host_cpu
from trimtab_compressor.host_latency import Effort, HostLatency, measure_latency
from trimtab_compressor.recipe_book import BASE_RECIPE, RecipeBook
from trimtab_compressor.recipe_file import read_recipe_file
from trimtab_compressor.recipes import SHIPPED, Choice
from trimtab_compressor.task import Task
from trimtab_compressor.task_file import load_task
from trimtab_protocol.errors import TrimtabError
from trimtab_protocol.manifest import ModelFormat

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("mnist", "animals", "text", "speech", "large_cnn")
MARKER = "table"
COLUMNS = (
    "recipe",
    "format",
    "accuracy, exact",
    "accuracy, this CPU",
    "bytes",
    "zlib bytes",
    "MACs",
    "latency to fp32",
    "note",
)
LATENCY_REVISION = 1
ZLIB_LEVEL = 9


@dataclass(frozen=True)
class Bench:
    """One task with the means to build and measure its candidates."""

    task: Task
    cache: Cache
    builder: Builder

    def make_row(self, choice: Choice) -> ModelRow:
        """Build, evaluate and measure one candidate; what fails is a row with its reason."""
        row = ModelRow(
            label=choice.recipe,
            format=choice.format.value,
            is_base=choice.recipe == BASE_RECIPE,
        )
        try:
            built = self.builder.build(choice)
            latency = self._latency(built.path, choice)
        except TrimtabError as error:
            return replace(row, note=f"not made: {error}")
        return replace(
            row,
            exact=built.quality.exact,
            on_host=built.quality.on_host,
            macs=next((row.macs for row in reversed(built.steps) if row.macs is not None), None),
            size_bytes=built.size_bytes,
            packed_bytes=len(zlib.compress(built.path.read_bytes(), ZLIB_LEVEL)),
            latency=latency,
        )

    def _latency(self, path: Path, choice: Choice) -> HostLatency:
        """Beside the float file of the same format; for that itself, beside itself."""
        base = self.builder.build(Choice(BASE_RECIPE, choice.format)).path
        effort = Effort()
        key = digest_key(
            {
                "latency": [digest_file(path), digest_file(base)],
                "cpu": read_host_cpu(),
                "effort": asdict(effort),
                "revision": LATENCY_REVISION,
            }
        )

        def make(target: Path) -> None:
            print(f"measure {choice}", flush=True)
            found = measure_latency(path, base, self.task.calibration[:1], effort)
            target.write_text(json.dumps(asdict(found)))

        return HostLatency(**json.loads(self.cache.get_or_make(key, ".json", make).read_text()))


def read_book(example: str) -> RecipeBook:
    """The base, then the recipe files for every task, then those of this one.

    Raises:
        ConfigError: A file is wrong, or two recipes have one name.
    """
    folders = (ROOT / "examples" / "recipes", ROOT / "examples" / example / "recipes")
    files = [path for folder in folders for path in sorted(folder.glob("*.toml"))]
    base = SHIPPED.find(BASE_RECIPE)
    return RecipeBook([base, *(recipe for path in files for recipe in read_recipe_file(path))])


def make_table(
    example: str, recipes: Sequence[str], formats: Sequence[ModelFormat]
) -> tuple[str, bool]:
    """The text for an example's README, and whether it has every recipe."""
    book = read_book(example)
    task = load_task(ROOT / "examples" / example / "task.py")
    cache = Cache(default_cache_folder())
    bench = Bench(task, cache, Builder(task, cache, lambda line: print(line, flush=True), book))
    rows = []
    for choice in book.choices(recipes, formats):
        rows.append(bench.make_row(choice))
        print(render_table(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
    heading = (
        f"{len(task.test.labels):,} test samples, {read_host_cpu()}, one thread, "
        f"Python {platform.python_version()}."
    )
    best = [
        f"- {format_.value}: {name} within half a point of fp32: `{row.label}`"
        for format_ in formats
        for name, row in find_best(rows, format_.value).items()
    ]
    is_whole = not recipes and len(formats) == len(ModelFormat)
    return "\n\n".join([heading, render_table(rows, COLUMNS), "\n".join(best)]), is_whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("examples", nargs="*", default=EXAMPLES, help="which; all if left out")
    parser.add_argument("--recipes", default="", help="only these, separated by commas")
    parser.add_argument("--formats", default=",".join(row.value for row in ModelFormat))
    parser.add_argument(
        "--write", action="store_true", help="write a table that has not every recipe, too"
    )
    chosen = parser.parse_args(arguments)
    recipes = [name for name in chosen.recipes.split(",") if name]
    formats = [ModelFormat(name) for name in chosen.formats.split(",")]
    for example in chosen.examples:
        content, is_whole = make_table(example, recipes, formats)
        print(f"\n{content}\n", flush=True)
        readme = ROOT / "examples" / example / "README.md"
        if is_whole or chosen.write:
            readme.write_text(replace_block(readme.read_text(), MARKER, content))
            print(f"written: {readme}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
