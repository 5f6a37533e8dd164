"""Another target: silhouettes of five animals, with ten labels of each."""

from draw import choose_classes, choose_few
from small_cnn import build_small_cnn

from trimtab_compressor.datasets.animals import load_animals
from trimtab_compressor.task import Task, Training

ANIMALS = load_animals()
POOL = choose_classes(ANIMALS.train, 5, 9)
TRAIN = choose_few(POOL, per_class=10)

TASK = Task(
    name="silhouettes-5-to-9",
    build_model=lambda width: build_small_cnn(width, 5),
    input_shape=(1, 28, 28),
    classes=5,
    train=TRAIN,
    test=choose_classes(ANIMALS.test, 5, 9),
    calibration=TRAIN.inputs,
    training=Training(
        epochs=30, batch=10, learning_rate=5e-3, fine_tune_learning_rate=3e-3, distill_epochs=30
    ),
)
