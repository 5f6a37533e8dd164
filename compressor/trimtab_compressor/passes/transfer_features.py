"""Transfer by features: the layers stay as they are, a new head is trained on what they give.

The features of the training data are computed once; each epoch then costs no more than the head. With
a few labels per class this cannot forget what the source knew, and little can be overfitted.
(Yosinski et al., "How transferable are features in deep neural networks?", 2014: frozen features.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trimtab_compressor.arrays import FloatArray
from trimtab_compressor.heads import MlpHead
from trimtab_compressor.passes.stage import Network, NetworkStage
from trimtab_compressor.passes.train import label_loss, schedule
from trimtab_compressor.passes.training_loop import predict, run_epochs
from trimtab_compressor.passes.transfer import start_from_source
from trimtab_compressor.specs.transfer import TransferFeatures
from trimtab_compressor.structure import replace_module
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError


def transfer_features(stage: NetworkStage[TransferFeatures]) -> Network:
    """Train a new head on the features of the source's layers.

    Raises:
        ConfigError: The source does not fit; or the network does something after its last layer, so
            that a head cannot be trained apart.
        ModelError: Training diverged.
    """
    spec, task, model = stage.spec, stage.task, stage.model
    name, findings = start_from_source(stage, spec.source_task)
    head = new_head(model.get_submodule(name), spec.hidden, task)
    replace_module(model, name, head)
    features = compute_features(model, head, task)
    training = task.training
    plan = schedule(training, training.epochs, training.learning_rate)
    run_epochs(head, features, label_loss(task), plan)
    model.eval()
    return Network(model, stage.width, {**findings, "features": int(np.prod(features.shape[1:]))})


def new_head(layer: nn.Module, hidden: int, task: Task) -> nn.Module:
    """The layer itself for a linear head, else a small network in its place.

    Raises:
        ConfigError: A hidden layer is asked for, and the last layer is not dense.
    """
    if hidden == 0:
        return layer
    if not isinstance(layer, nn.Linear):
        raise ConfigError(
            f"task {task.name}: the last layer is a {type(layer).__name__}, a hidden layer can only "
            "be put before a dense one; leave out hidden"
        )
    torch.manual_seed(task.training.seed)
    return MlpHead(layer.in_features, hidden, layer.out_features)


def compute_features(model: nn.Module, head: nn.Module, task: Task) -> FloatArray:
    """What the head is given for each training sample: (n, *shape of the features).

    Raises:
        ConfigError: The head's output is not the network's.
    """
    seen: list[Tensor] = []

    def keep(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].detach())

    handle = head.register_forward_pre_hook(keep)
    try:
        answers = predict(model, task.train.inputs)
    finally:
        handle.remove()
    features: FloatArray = torch.cat(seen).clone().numpy()
    alone = predict(head, features[:8]) if len(features) == len(answers) else None
    if alone is None or alone.shape != answers[:8].shape or not torch.allclose(alone, answers[:8]):
        raise ConfigError(
            f"task {task.name}: the network does more after its last layer, so a head cannot be "
            "trained apart; use transfer_finetune"
        )
    return features
