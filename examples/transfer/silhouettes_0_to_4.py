"""Another source: silhouettes of the other five animals, with all their labels."""

from draw import choose_classes
from small_cnn import build_small_cnn

from trimtab_compressor.datasets.animals import load_animals
from trimtab_compressor.task import Task, Training

ANIMALS = load_animals()

TASK = Task(
    name="silhouettes-0-to-4",
    build_model=lambda width: build_small_cnn(width, 5),
    train=choose_classes(ANIMALS.train, 0, 4),
    test=choose_classes(ANIMALS.test, 0, 4),
    training=Training(epochs=6, batch=64, learning_rate=5e-3),
)
