"""Silhouettes of all ten animals, with all their labels: the harder set of `bench/distillation.py`."""

from small_cnn import build_small_cnn

from trimtab_compressor.datasets.animals import load_animals
from trimtab_compressor.task import Task, Training

ANIMALS = load_animals()

TASK = Task(
    name="ten-silhouettes",
    build_model=lambda width: build_small_cnn(width, 10),
    train=ANIMALS.train,
    test=ANIMALS.test,
    training=Training(epochs=6, distill_epochs=6, batch=64, learning_rate=5e-3),
)
