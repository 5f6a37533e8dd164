"""A task refuses what cannot belong together, and says what to do."""

from __future__ import annotations

import numpy as np
import pytest

from support.compressor_rig import a_task, build_tiny, draw_samples
from trimtab_compressor.task import Samples, Training
from trimtab_protocol.errors import ConfigError

GOOD = draw_samples(12, seed=0)


def with_inputs(inputs: object) -> Samples:
    return Samples(inputs=inputs, labels=GOOD.labels)  # type: ignore[arg-type]


def with_labels(labels: object) -> Samples:
    return Samples(inputs=GOOD.inputs, labels=labels)  # type: ignore[arg-type]


NAN = GOOD.inputs.copy()
NAN[3, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "My Task"}, "lowercase letters"),
        ({"classes": 1}, "at least 2"),
        ({"metric": "f1"}, "use 'top1_accuracy'"),
        ({"build_model": None}, "build_model must be a function"),
        ({"train": with_inputs([1, 2])}, "train.inputs must be a float32 array, found list"),
        ({"train": with_inputs(GOOD.inputs.astype(np.float64))}, "found float64"),
        ({"test": with_inputs(GOOD.inputs[:0])}, "test.inputs is empty"),
        ({"test": with_inputs(GOOD.inputs[:, 0])}, "has samples of shape [8, 8]"),
        ({"train": with_inputs(NAN)}, "NaN or infinite"),
        ({"calibration": GOOD.inputs[:0]}, "calibration is empty"),
        ({"calibration": GOOD.inputs[0]}, "calibration has samples of shape [8, 8]"),
        ({"train": with_labels(GOOD.labels[:5])}, "has shape [5] for 12 inputs"),
        ({"train": with_labels(GOOD.labels.astype(float))}, "array of integers"),
        ({"test": with_labels(GOOD.labels + 1)}, "allows 0 to 2"),
        ({"test": with_labels(GOOD.labels - 1)}, "from -1"),
    ],
)
def test_a_task_that_cannot_work_says_what_and_where(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        a_task(**changes)
    assert said in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 0}, {"batch": 0}, {"learning_rate": -1.0}, {"seed": -1}, {"fine_tune_epochs": -1}],
)
def test_training_settings_that_cannot_train_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="training"):
        Training(**changes)


def test_a_good_task_knows_its_data_by_digest() -> None:
    one, same = a_task(), a_task()
    other = a_task(calibration=GOOD.inputs)
    assert one.data_sha256 == same.data_sha256
    assert one.data_sha256["calibration"] != other.data_sha256["calibration"]
    assert one.data_sha256["train"] == other.data_sha256["train"]
    assert one.build_model is build_tiny
