"""Who teaches: networks of the task, or files; and their answers for the training data.

Rules:
    1. A teacher's answers are computed once per pass: there is no augmentation, so they do not change
       between epochs.
    2. Answers are checked before anything is trained: one finite number per class for each sample.
    3. Of a file only the answers are used. If they are probabilities, their logarithms are logits.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trimtab_compressor.checkpoint import load_checkpoint
from trimtab_compressor.passes.distillation_losses import join_answers
from trimtab_compressor.passes.stage import NetworkStage
from trimtab_compressor.passes.training_loop import PREDICT_BATCH, predict
from trimtab_compressor.runtimes.port import Kernels, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.specs.distillation import AnswerLesson, Lesson
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ErrorCode, StorageError, TrimtabError


def answer_as_one(stage: NetworkStage[Any], spec: AnswerLesson, temperature: float) -> Tensor:
    """Logits of all teachers together for the training data: (n, classes).

    Args:
        stage: Gives the base and the task.
        spec: Says who teaches.
        temperature: See `join_answers`.

    Raises:
        ConfigError: A teacher cannot be read, does not take the task's inputs, or answers with
            another number of classes or with NaN.
    """
    task = stage.task
    if spec.teacher_files:
        named = [(row, ask_file(Path(row), task)) for row in spec.teacher_files]
    else:
        teachers = find_teachers(stage, spec, spec.teacher_seeds)
        named = [(name, predict(model, task.train.inputs)) for name, model in teachers]
    answers = [check_answers(name, found, task) for name, found in named]
    return join_answers(answers, temperature)


def find_teachers(
    stage: NetworkStage[Any], spec: Lesson, seeds: int = 1
) -> list[tuple[str, nn.Module]]:
    """The task's own networks that teach, with their names for messages.

    Args:
        stage: Gives the base, and trains others.
        spec: Says which width.
        seeds: How many networks, alike but for the seed.
    """
    task, width = stage.task, spec.teacher_width
    first = stage.base if width is None else stage.train_base(task, width)
    name = "the base network" if width is None else f"the network of width {width:g}"
    found = [(name, first)]
    for more in range(1, seeds):
        seed = task.training.seed + more
        again = replace(task, training=replace(task.training, seed=seed))
        found.append((f"{name}, seed {seed}", stage.train_base(again, width or 1.0)))
    return found


def check_answers(name: str, answers: Tensor, task: Task) -> Tensor:
    """Refuse what cannot teach; give logits.

    Args:
        name: Of the teacher, for the message.
        answers: For the training data.
        task: Says how many classes there are.

    Raises:
        ConfigError: Another number of classes, or NaN.
    """
    expected = (len(task.train.inputs), task.classes)
    if tuple(answers.shape) != expected:
        raise ConfigError(
            f"teacher {name} gives {list(answers.shape[1:])} for each sample, the task has "
            f"{task.classes} classes; use a teacher of the same classes"
        )
    answers = answers.float()
    if not torch.isfinite(answers).all():
        rows = int((~torch.isfinite(answers)).any(dim=1).sum())
        raise ConfigError(
            f"teacher {name} answers {rows} of {len(answers)} training samples with NaN or infinity; "
            "mend it, or use another"
        )
    is_probability = bool((answers >= 0).all()) and torch.allclose(
        answers.sum(dim=1), torch.ones(len(answers)), atol=1e-3
    )
    return answers.clamp_min(1e-7).log() if is_probability else answers


def ask_file(path: Path, task: Task) -> Tensor:
    """A file's answers for the training data, by whatever runs it.

    Raises:
        ConfigError: It is missing or unreadable, or does not take the task's inputs.
    """
    if not path.is_file():
        raise ConfigError(f"teacher {path} does not exist", code=ErrorCode.CONFIG_MISSING)
    if path.suffix not in READERS:
        raise ConfigError(
            f"teacher {path} ends in '{path.suffix}'; a teacher ends in {', '.join(READERS)}"
        )
    try:
        return READERS[path.suffix](path, task)
    except ConfigError:
        raise
    except TrimtabError as error:
        raise ConfigError(f"teacher {path}: {error.message}") from error
    except Exception as error:  # a saved program may raise anything; it is our input
        raise ConfigError(
            f"teacher {path} cannot be read or run on inputs of shape {list(task.input_shape)}: "
            f"{_first_line(error)}; use a teacher with the task's inputs and a free batch"
        ) from error


def _ask_runtime(path: Path, task: Task) -> Tensor:
    runner = open_model(path, Kernels.DEFAULT)
    inputs = fit_samples(runner.io, task.train.inputs, what=f"training data for teacher {path}")
    return torch.from_numpy(run_all(runner, inputs)[runner.io.outputs[0].name])


def _ask_torch(path: Path, task: Task) -> Tensor:
    """A TorchScript archive carries code, a saved network does not."""
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"teacher {path} is no PyTorch file; save it again")
    with zipfile.ZipFile(path) as archive:
        has_code = any("/code/" in name for name in archive.namelist())
    if not has_code:
        return _ask_saved(path, task)
    program = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return _ask_program(program.eval(), task)


def _ask_saved(path: Path, task: Task) -> Tensor:
    try:
        model, _ = load_checkpoint(task, path)
    except StorageError as error:
        raise ConfigError(
            f"teacher {path} is neither a TorchScript program nor a network that was saved for task "
            f"{task.name}; export it as one of {', '.join(READERS)}"
        ) from error
    return predict(model, task.train.inputs)


def _ask_exported(path: Path, task: Task) -> Tensor:
    return _ask_program(torch.export.load(path).module(), task)


def _ask_program(program: Callable[[Tensor], Tensor], task: Task) -> Tensor:
    """In batches, or one by one where the batch is fixed to one."""
    rows = torch.from_numpy(task.train.inputs)
    with torch.inference_mode():
        try:
            program(rows[:2])
            size = PREDICT_BATCH
        except Exception:  # noqa: BLE001 - whatever a fixed batch raises; if it is not that, the next line raises it
            program(rows[:1])
            size = 1
        found = [program(part) for part in torch.split(rows, size)]
    return torch.cat(found).clone()


READERS: dict[str, Callable[[Path, Task], Tensor]] = {
    ".onnx": _ask_runtime,
    ".tflite": _ask_runtime,
    ".pt": _ask_torch,
    ".pt2": _ask_exported,
}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
