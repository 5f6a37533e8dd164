"""A CNN of ten million parameters for a mobile device: nearly all of them in dense layers."""

from torch import nn

from trimtab_compressor.datasets.mnist import load_mnist
from trimtab_compressor.task import Task, Training


def build_model(width: float = 1.0) -> nn.Module:
    """9,998,202 parameters at width 1: 18,816 in convolutions, the others in dense layers."""
    first, second, wide, narrow = (max(8, round(size * width)) for size in (32, 64, 1232, 352))
    return nn.Sequential(
        nn.Conv2d(1, first, kernel_size=3),  # (n, 1, 28, 28) -> (n, first, 26, 26)
        nn.ReLU(),
        nn.MaxPool2d(2),  # -> (n, first, 13, 13)
        nn.Conv2d(first, second, kernel_size=3),  # -> (n, second, 11, 11)
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * 11 * 11, wide),
        nn.ReLU(),
        nn.Linear(wide, narrow),
        nn.ReLU(),
        nn.Linear(narrow, 10),
    )


MNIST = load_mnist()

TASK = Task(
    name="large-cnn",
    build_model=build_model,
    input_shape=(1, 28, 28),
    classes=10,
    train=MNIST.train,
    test=MNIST.test,
    calibration=MNIST.train.inputs[:300],
    training=Training(
        epochs=2,
        fine_tune_epochs=1,
        distill_epochs=3,
        batch=128,
        learning_rate=2e-3,
        fine_tune_learning_rate=8e-4,
        seed=0,
    ),
)
