"""The digits of examples/mnist, trained for a short time, so that the demo is over in minutes."""

from torch import nn

from trimtab_compressor.datasets.mnist import load_mnist
from trimtab_compressor.task import Task, Training


def build_model(width: float = 1.0) -> nn.Module:
    """Conv 3x3 (32), max-pool, dense 128, dense 10: 693,962 parameters at width 1."""
    filters, hidden = max(8, round(32 * width)), max(8, round(128 * width))
    return nn.Sequential(
        nn.Conv2d(1, filters, kernel_size=3),  # (n, 1, 28, 28) -> (n, filters, 26, 26)
        nn.ReLU(),
        nn.MaxPool2d(2),  # -> (n, filters, 13, 13)
        nn.Flatten(),
        nn.Linear(filters * 13 * 13, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),  # -> (n, 10) logits
    )


MNIST = load_mnist()

TASK = Task(
    name="mnist-cnn",
    build_model=build_model,
    input_shape=(1, 28, 28),
    classes=10,
    train=MNIST.train,
    test=MNIST.test,
    calibration=MNIST.train.inputs[:300],
    training=Training(epochs=3, batch=128, learning_rate=8e-3, seed=0),
)
