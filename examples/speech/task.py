"""Which of nine people speaks: cepstra of a spoken vowel, two convolutions over time."""

from torch import Tensor, nn

from trimtab_compressor.datasets.vowels import COEFFICIENTS, FRAMES, SPEAKERS, load_vowels
from trimtab_compressor.task import Task, Training


class Pool(nn.Module):
    """Mean over time: (n, features, frames) -> (n, features)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Average the last axis."""
        return inputs.mean(dim=2)


def build_model(width: float = 1.0) -> nn.Module:
    """59 thousand parameters at width 1."""
    first, second, hidden = (max(8, round(size * width)) for size in (64, 128, 96))
    return nn.Sequential(
        nn.Conv1d(COEFFICIENTS, first, kernel_size=5, padding=2),  # (n, 12, 29) -> (n, first, 29)
        nn.BatchNorm1d(first),
        nn.ReLU(),
        nn.MaxPool1d(2),  # -> (n, first, 14)
        nn.Conv1d(first, second, kernel_size=5, padding=2),
        nn.BatchNorm1d(second),
        nn.ReLU(),
        Pool(),  # -> (n, second)
        nn.Linear(second, hidden),
        nn.ReLU(),
        nn.Linear(hidden, SPEAKERS),
    )


VOWELS = load_vowels()

TASK = Task(
    name="speech-vowels",
    build_model=build_model,
    input_shape=(COEFFICIENTS, FRAMES),
    classes=SPEAKERS,
    train=VOWELS.train,
    test=VOWELS.test,
    calibration=VOWELS.train.inputs,
    training=Training(
        epochs=60,
        fine_tune_epochs=30,
        distill_epochs=60,
        batch=32,
        learning_rate=5e-3,
        fine_tune_learning_rate=2e-3,
        seed=0,
    ),
)
