"""The digits of examples/mnist, trained for a short time, so that the demo is over in minutes."""

from dataclasses import replace
from pathlib import Path

from trimtab_compressor.task import Training
from trimtab_compressor.task_file import load_task

TASK = replace(
    load_task(Path(__file__).resolve().parents[1] / "mnist" / "task.py"),
    training=Training(epochs=3, batch=128, learning_rate=8e-3, seed=0),
)
