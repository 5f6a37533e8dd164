"""Teachers from files, each run by what it was made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from support.compressor_rig import CLASSES, INPUT_SHAPE, a_task, build_tiny, trained_tiny
from support.networks import Misguided, make_stage, misguided_share
from trimtab_compressor.checkpoint import save_checkpoint
from trimtab_compressor.export.table import EXPORTERS
from trimtab_compressor.passes.distill import distill
from trimtab_compressor.passes.distill_teachers import answer_as_one, ask_file
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.specs.distillation import Distill
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import ModelFormat


@pytest.fixture(scope="module")
def task() -> Task:
    return a_task()


@pytest.fixture(scope="module")
def base(task: Task) -> nn.Module:
    return trained_tiny(task)


@pytest.fixture(scope="module")
def files(base: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as every kind of file."""
    folder = tmp_path_factory.mktemp("teachers")
    EXPORTERS[ModelFormat.ONNX](base, INPUT_SHAPE, folder / "net.onnx")
    save_checkpoint(base, 1.0, folder / "saved.pt")
    example = torch.zeros(2, *INPUT_SHAPE)
    trace(base, folder / "script.pt")
    batch = {0: torch.export.Dim("batch")}
    torch.export.save(
        torch.export.export(base, (example,), dynamic_shapes=(batch,)), folder / "free.pt2"
    )
    torch.export.save(torch.export.export(base, (example[:1],)), folder / "single.pt2")
    return folder


@pytest.mark.parametrize("name", ["net.onnx", "saved.pt", "script.pt", "free.pt2", "single.pt2"])
def test_every_kind_of_file_answers_as_its_network(
    task: Task, base: nn.Module, files: Path, name: str
) -> None:
    expected = predict(base, task.train.inputs)
    assert torch.allclose(ask_file(files / name, task), expected, atol=1e-4)


def test_files_answer_together_with_the_mean(task: Task, base: nn.Module, files: Path) -> None:
    save_checkpoint(build_tiny(), 1.0, files / "other.pt")
    names = (str(files / "net.onnx"), str(files / "other.pt"))
    found = answer_as_one(make_stage(Distill(), task, base), Distill(teacher_files=names), 2.0)
    one, other = (torch.softmax(ask_file(Path(name), task) / 2, dim=1) for name in names)
    assert torch.allclose(torch.softmax(found / 2, dim=1), (one + other) / 2, atol=1e-5)


def trace(model: nn.Module, path: Path) -> str:
    """A TorchScript file, which is made in no time."""
    torch.jit.save(torch.jit.trace(model.eval(), torch.zeros(2, *INPUT_SHAPE)), path)  # type: ignore[no-untyped-call]
    return str(path)


def test_a_student_learns_from_a_file_and_not_from_the_base(
    task: Task, base: nn.Module, tmp_path: Path
) -> None:
    wrong = trace(Misguided(base), tmp_path / "wrong.pt")
    spec = Distill(width=0.5, soft_weight=1.0, teacher_files=(wrong,))
    made = distill(make_stage(spec, task, base))
    assert misguided_share(made.module, task) >= 0.9
    assert float(made.findings["teacher_train_accuracy"] or 0) < 0.1


def test_a_teacher_of_another_input_is_refused_in_one_sentence(task: Task, files: Path) -> None:
    wide = a_task(
        input_shape=(1, 12, 12),
        **{
            name: type(samples)(np.zeros((4, 1, 12, 12), np.float32), samples.labels[:4])
            for name, samples in (("train", task.train), ("test", task.test))
        },
        calibration=np.zeros((4, 1, 12, 12), np.float32),
    )
    with pytest.raises(ConfigError, match=r"net.onnx: samples .*\[1, 12, 12\], the model takes"):
        ask_file(files / "net.onnx", wide)
    for name in ("script.pt", "free.pt2", "saved.pt"):
        with pytest.raises(ConfigError, match=rf"{name} cannot be read or run on .*\[1, 12, 12\]"):
            ask_file(files / name, wide)


def test_a_teacher_of_other_classes_is_refused_before_anything_is_trained(
    task: Task, base: nn.Module, tmp_path: Path
) -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES + 2))
    path = trace(other, tmp_path / "other.pt")
    stage = make_stage(Distill(teacher_files=(path,)), task, base)
    with pytest.raises(ConfigError, match=r"other.pt gives \[5\] for each sample"):
        distill(stage)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.onnx", None, "gone.onnx does not exist"),
        ("net.h5", b"x", r"ends in '.h5'; a teacher ends in .onnx, .tflite, .pt, .pt2"),
        ("bad.onnx", b"x", "bad.onnx cannot be read as an ONNX model"),
        ("empty.onnx", b"", "is empty"),
        ("bad.pt", b"x", "bad.pt is no PyTorch file"),
        ("bad.pt2", b"x", "bad.pt2 cannot be read or run"),
    ],
)
def test_a_file_that_is_no_teacher_is_named(
    task: Task, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        ask_file(path, task)


def test_a_pt_file_of_something_else_says_what_is_expected(task: Task, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="neither a TorchScript program nor a network that was"):
        ask_file(tmp_path / "other.pt", task)
