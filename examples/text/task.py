"""Which of 16 languages are these few words in: characters, two convolutions over time, dense."""

from torch import Tensor, nn

from trimtab_compressor.datasets.languages import CODES, LANGUAGES, LENGTH, load_languages
from trimtab_compressor.task import Task, Training


class Characters(nn.Module):
    """A vector per character: codes as floats (n, length) -> (n, features, length)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(CODES, features)

    def forward(self, codes: Tensor) -> Tensor:
        """Look the vectors up; a task's inputs are floats, so the codes are made integers here."""
        found: Tensor = self.vectors(codes.long())
        return found.transpose(1, 2)


class Pool(nn.Module):
    """Mean over time: (n, features, length) -> (n, features)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Average the last axis."""
        return inputs.mean(dim=2)


def build_model(width: float = 1.0) -> nn.Module:
    """76 thousand parameters at width 1."""
    features, first, second, hidden = (max(8, round(size * width)) for size in (32, 96, 160, 96))
    return nn.Sequential(
        Characters(features),  # (n, 32) -> (n, features, 32)
        nn.Conv1d(features, first, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool1d(2),  # -> (n, first, 16)
        nn.Conv1d(first, second, kernel_size=3, padding=1),
        nn.ReLU(),
        Pool(),  # -> (n, second)
        nn.Linear(second, hidden),
        nn.ReLU(),
        nn.Linear(hidden, len(LANGUAGES)),
    )


TEXTS = load_languages(train_count=48_000, test_count=8_000)

TASK = Task(
    name="text-languages",
    build_model=build_model,
    input_shape=(LENGTH,),
    classes=len(LANGUAGES),
    train=TEXTS.train,
    test=TEXTS.test,
    calibration=TEXTS.train.inputs[:300],
    training=Training(
        epochs=5,
        fine_tune_epochs=2,
        distill_epochs=5,
        batch=128,
        learning_rate=5e-3,
        fine_tune_learning_rate=2e-3,
        seed=0,
    ),
)
