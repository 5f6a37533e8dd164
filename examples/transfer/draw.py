"""Choose samples: of some classes, and a few of each."""

import numpy as np

from trimtab_compressor.task import Samples


def choose_classes(samples: Samples, first: int, last: int) -> Samples:
    """Those of the classes from `first` to `last`, whose labels begin at 0 again."""
    rows = (samples.labels >= first) & (samples.labels <= last)
    return Samples(inputs=samples.inputs[rows], labels=samples.labels[rows] - first)


def choose_few(samples: Samples, per_class: int, seed: int = 0) -> Samples:
    """So many of each class, drawn by the seed."""
    random = np.random.default_rng(seed)
    rows = np.concatenate(
        [
            random.permutation(np.flatnonzero(samples.labels == label))[:per_class]
            for label in np.unique(samples.labels)
        ]
    )
    return Samples(inputs=samples.inputs[rows], labels=samples.labels[rows])
