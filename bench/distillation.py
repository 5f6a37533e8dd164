"""Is a student that is taught better than one that learns alone? Same students, same seeds, same epochs.

    python bench/distillation.py examples/mnist/task.py --width 0.1 --train 5000 --seeds 0 1 2

For each seed a base is trained, then every lesson teaches a student that begins alike. The table has
the mean accuracy on the whole test set with its standard deviation over the seeds, and the mean of
the differences to the student alone of the same seed. Bases are kept in the cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.networks import percent, spread
from trimtab_compressor.cache import Cache, default_cache_folder
from trimtab_compressor.network import new_network
from trimtab_compressor.network_line import NetworkLine
from trimtab_compressor.passes.stage import NetworkStage
from trimtab_compressor.passes.table import NETWORK_PASSES
from trimtab_compressor.specs.distillation import (
    Distill,
    DistillDecoupled,
    DistillFeatures,
    DistillHard,
    Lesson,
)
from trimtab_compressor.task import Samples, Task
from trimtab_compressor.task_file import load_task

ALONE = "alone"


def lessons(width: float) -> dict[str, Lesson]:
    """What is compared, by name."""
    return {
        ALONE: DistillHard(width=width, teacher_weight=0.0),
        "hard labels of the teacher": DistillHard(width=width, teacher_weight=0.5),
        "soft, T 4, weight 0.9": Distill(width=width),
        "soft, T 4, weight 0.5": Distill(width=width, soft_weight=0.5),
        "soft, T 2, weight 0.9": Distill(width=width, temperature=2.0),
        "DKD, beta 2": DistillDecoupled(width=width),
        "DKD, beta 8": DistillDecoupled(width=width, beta=8.0),
        "features: maps": DistillFeatures(width=width),
        "features: attention": DistillFeatures(
            width=width, feature_loss="attention", feature_weight=10.0
        ),
        "soft, ensemble of 3": Distill(width=width, teacher_seeds=3),
    }


def measure(
    task: Task, line: NetworkLine, width: float, skip: set[str]
) -> Iterator[tuple[str, float]]:
    """The base's accuracy, then each lesson's student's, in percent."""
    base = line.train_base(task, 1.0)
    yield "the base", percent(base, task)
    for name, spec in lessons(width).items():
        if name in skip:
            continue
        student = new_network(task, width)  # not used: each lesson builds its own
        stage = NetworkStage(spec, task, student, base, train_base=line.train_base)
        yield name, percent(NETWORK_PASSES[spec.pass_name](stage).module, task)


def print_table(found: dict[str, list[float]]) -> None:
    """As Markdown."""
    print("| student | accuracy, % | against alone, points |")
    print("|---|---|---|")
    for name, values in found.items():
        against = [row - own for row, own in zip(values, found[ALONE], strict=False)]
        print(f"| {name} | {spread(values)} | {spread(against, sign='+')} |")


def main() -> None:
    """Measure, and print the table after each seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", type=Path)
    parser.add_argument("--width", type=float, required=True, help="of the student")
    parser.add_argument("--train", type=int, help="so many training samples, the first ones")
    parser.add_argument("--epochs", type=int, help="of the base and of the lessons")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--skip", nargs="*", default=[], help="names of lessons")
    options = parser.parse_args()
    task = load_task(options.task)
    train = Samples(task.train.inputs[: options.train], task.train.labels[: options.train])
    found: dict[str, list[float]] = {}
    for seed in options.seeds:
        training = replace(task.training, seed=seed)
        if options.epochs:
            training = replace(training, epochs=options.epochs, distill_epochs=options.epochs)
        seeded = replace(task, train=train, training=training)
        line = NetworkLine(seeded, Cache(default_cache_folder()))
        for name, value in measure(seeded, line, options.width, set(options.skip)):
            print(f"seed {seed}: {name}: {value:.2f}", file=sys.stderr, flush=True)
            found.setdefault(name, []).append(value)
    print_table(found)


if __name__ == "__main__":
    main()
