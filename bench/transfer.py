"""With few labels: is it better to start from another task's network than from nothing?

    python bench/transfer.py examples/transfer/digits_0_to_4.py examples/transfer/digits_5_to_9.py \
        --labels 2 5 10 50 --seeds 3

For each seed, so many labels per class are drawn from all of the target's, every way learns from the
same ones in the same number of epochs, and is judged on the whole test set. "From nothing" also gets
three times the epochs, so that it cannot be behind for want of time. The source's base is trained once
per seed, and kept in the cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "transfer"))

from draw import choose_few
from torch import nn

from support.networks import percent, spread
from trimtab_compressor.cache import Cache, default_cache_folder
from trimtab_compressor.network import new_network
from trimtab_compressor.network_line import NetworkLine
from trimtab_compressor.passes.stage import NetworkStage
from trimtab_compressor.passes.table import NETWORK_PASSES
from trimtab_compressor.passes.train import train_base
from trimtab_compressor.python_file import run_python_file
from trimtab_compressor.specs.base import NetworkSpec
from trimtab_compressor.specs.transfer import TransferFeatures, TransferFinetune
from trimtab_compressor.task import Samples, Task
from trimtab_compressor.task_file import load_task

NOTHING = "from nothing"


def ways(source: str) -> dict[str, tuple[NetworkSpec, ...]]:
    """What is compared, by name: passes in order."""
    return {
        "features, linear head": (TransferFeatures(source_task=source),),
        "features, head with 64 hidden": (TransferFeatures(source_task=source, hidden=64),),
        "fine-tuning, all at once, one rate": (
            TransferFinetune(source_task=source, stages=1, rate_decay=1.0),
        ),
        "fine-tuning, gradual, decay 0.4": (
            TransferFinetune(source_task=source, epochs_per_stage=5),
        ),
        "features, then fine-tuning": (
            TransferFeatures(source_task=source),
            TransferFinetune(epochs_per_stage=5),
        ),
    }


def measure(task: Task, source_file: Path, source_base: nn.Module) -> Iterator[tuple[str, float]]:
    """Each way's accuracy, in percent."""
    yield NOTHING, percent(train_base(task, 1.0), task)
    longer = replace(task, training=replace(task.training, epochs=3 * task.training.epochs))
    yield f"{NOTHING}, 3 times the epochs", percent(train_base(longer, 1.0), task)
    for name, specs in ways(str(source_file)).items():
        model = new_network(task, 1.0)
        for spec in specs:
            stage = NetworkStage(spec, task, model, model, train_base=lambda *_: source_base)
            model = NETWORK_PASSES[spec.pass_name](stage).module
        yield name, percent(model, task)


def draw_task(pool: Samples, target: Task, per_class: int, seed: int) -> Task:
    """The target with so many labels per class."""
    few = choose_few(pool, per_class, seed)
    return replace(
        target,
        train=few,
        calibration=few.inputs,
        training=replace(target.training, seed=seed, batch=min(32, len(few.labels) // 5)),
    )


def print_table(found: dict[str, dict[int, list[float]]], labels: Sequence[int]) -> None:
    """As Markdown."""
    print("| accuracy, % | " + " | ".join(f"{row} per class" for row in labels) + " |")
    print("|---" * (len(labels) + 1) + "|")
    for name, by_count in found.items():
        cells = [spread(by_count[count]) for count in labels if count in by_count]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument(
        "target", type=Path, help="a module with TASK and POOL, the samples to draw from"
    )
    parser.add_argument("--labels", type=int, nargs="+", default=[2, 5, 10, 50], help="per class")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    source, target = load_task(options.source), load_task(options.target)
    pool: Samples = run_python_file(options.target, "pool").POOL
    found: dict[str, dict[int, list[float]]] = {}
    for seed in range(options.seeds):
        seeded = replace(source, training=replace(source.training, seed=seed))
        line = NetworkLine(seeded, Cache(default_cache_folder()))
        base = line.train_base(seeded, 1.0)
        print(f"seed {seed}: the source: {percent(base, seeded):.2f}", file=sys.stderr, flush=True)
        for count in options.labels:
            task = draw_task(pool, target, count, seed)
            for name, value in measure(task, options.source, base):
                print(f"seed {seed}: {count}: {name}: {value:.2f}", file=sys.stderr, flush=True)
                found.setdefault(name, {}).setdefault(count, []).append(value)
    print_table(found, options.labels)


if __name__ == "__main__":
    main()
