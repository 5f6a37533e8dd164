"""The source: MNIST digits 0 to 4, of which there are many."""

from draw import choose_classes
from small_cnn import build_small_cnn

from trimtab_compressor.datasets.mnist import load_mnist
from trimtab_compressor.task import Samples, Task, Training

MNIST = load_mnist()
TRAIN = choose_classes(MNIST.train, 0, 4)

TASK = Task(
    name="digits-0-to-4",
    build_model=lambda width: build_small_cnn(width, 5),
    input_shape=(1, 28, 28),
    classes=5,
    train=Samples(TRAIN.inputs[:10000], TRAIN.labels[:10000]),
    test=choose_classes(MNIST.test, 0, 4),
    calibration=TRAIN.inputs[:200],
    training=Training(epochs=3, batch=64, learning_rate=5e-3),
)
