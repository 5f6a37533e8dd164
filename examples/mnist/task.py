"""MNIST digits with a small CNN: the example task, and a pattern for your own.

Copy this file, change the three parts below, and run `trimtab-compressor run task.py --out out`.
"""

from torch import nn

from trimtab_compressor.datasets.mnist import load_mnist
from trimtab_compressor.task import Task, Training


# 1. The network. `width` scales its channels, so that a smaller student can be built.
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


# 2. The data: float32 inputs (n, 1, 28, 28) and integer labels (n,).
MNIST = load_mnist()

# 3. The task. `trimtab_compressor.task.Task` says what each field is.
TASK = Task(
    name="mnist-cnn",
    build_model=build_model,
    input_shape=(1, 28, 28),
    classes=10,
    train=MNIST.train,
    test=MNIST.test,
    calibration=MNIST.train.inputs[:300],
    training=Training(epochs=5, distill_epochs=10, batch=128, learning_rate=4e-3, seed=0),
)
