"""`run` on model files that nobody here made, by the real runtimes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.model_files import (
    two_headed_samples,
    write_free_axes_onnx,
    write_two_headed_onnx,
    write_unknown_operator_onnx,
)
from support.tiny_tflite import make_tflite
from trimtab_compressor import file_line
from trimtab_compressor.cli import main
from trimtab_compressor.evaluate import run_file
from trimtab_compressor.given_file import opset_of
from trimtab_compressor.passes.stage import FileStage
from trimtab_compressor.passes.table import FILE_PASSES
from trimtab_compressor.run_report import RunReport
from trimtab_compressor.runtimes.port import Kernels
from trimtab_compressor.specs.base import FileSpec
from trimtab_protocol.manifest import ModelFormat

ONNX = ModelFormat.ONNX
RECIPE = 'name = "mine"\n[[passes]]\npass = "quantize_static"\nis_per_channel = false\n'


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    np.savez(tmp_path / "two.npz", **two_headed_samples())  # type: ignore[arg-type]
    return tmp_path / "two.npz"


def run(folder: Path, model: Path, *more: object) -> int:
    options = ["run", str(model), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    return main([*options, *map(str, more)])


def read_report(folder: Path) -> RunReport:
    return RunReport.model_validate_json((folder / "out" / "results.json").read_text())


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_everything_that_needs_no_training_is_done_to_a_file_of_two_inputs_and_outputs(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_two_headed_onnx(tmp_path / "Two Heads.onnx")
    assert run(tmp_path, model, "--data", samples) == 0
    captured = capsys.readouterr()
    assert "20 samples to calibrate with, the other 20 to judge on" in captured.err
    assert "left out: recipe distill50: train needs a PyTorch network" in captured.err
    report = read_report(tmp_path)
    assert report.task == "two-heads"
    assert report.candidates[0].recipe == "fp32"
    assert "static_w8a8_asym" in [row.recipe for row in report.candidates]
    assert (tmp_path / "out" / "fp32.onnx").read_bytes() == model.read_bytes()
    for row in report.candidates:
        assert row.quality.metric == "cosine_agreement", "the second output is no answer"
        assert row.quality.samples == 20
        assert row.quality.base == 1.0
        assert row.quality.exact is not None
        assert row.quality.exact > 0.98
        assert row.steps[0].name == "given"
        assert row.steps[-1].size_bytes == row.size_bytes
    assert "accuracy" not in captured.out


def test_with_labels_it_is_accuracy_and_without_it_is_agreement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_free_axes_onnx(tmp_path / "free.onnx")
    rows = np.random.default_rng(0).normal(size=(60, 2, 20)).astype(np.float32)
    right = run_file(model, rows, Kernels.EXACT)[0].argmax(axis=1)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "labels.npy", np.where(np.arange(60) % 2, right, (right + 1) % 3))
    options = ["--data", tmp_path / "rows.npy", "--recipe", "static_w8a8_asym", "--json"]
    assert run(tmp_path, model, *options) == 0
    shown = RunReport.model_validate_json(capsys.readouterr().out)
    assert shown == read_report(tmp_path)
    assert shown.candidates[0].quality.metric == "top1_agreement"
    assert run(tmp_path, model, *options, "--labels", tmp_path / "labels.npy") == 0
    quality = read_report(tmp_path).candidates[0].quality
    assert quality.metric == "top1_accuracy"
    assert quality.base == 0.5


def test_a_recipe_file_and_calibration_samples_of_their_own(tmp_path: Path, samples: Path) -> None:
    model = write_two_headed_onnx(tmp_path / "two.onnx")
    (tmp_path / "mine.toml").write_text(RECIPE)
    options = ["--data", samples, "--calibration", samples, "--recipe-file", tmp_path / "mine.toml"]
    assert run(tmp_path, model, *options) == 0
    (row,) = read_report(tmp_path).candidates
    assert (row.recipe, row.quality.samples) == ("mine", 40)
    assert row.passes[0].parameters["is_per_channel"] is False


@pytest.mark.parametrize("changes", [{"opset": 9}, {"is_split": True}], ids=["old", "split"])
def test_an_old_opset_is_converted_and_split_weights_are_put_together(
    tmp_path: Path, samples: Path, changes: dict[str, int]
) -> None:
    model = write_two_headed_onnx(tmp_path / "model.onnx", **changes)  # type: ignore[arg-type]
    assert run(tmp_path, model, "--data", samples, "--recipe", "fp32") == 0
    made = tmp_path / "out" / "fp32.onnx"
    assert opset_of(onnx.load(made, load_external_data=False)) >= 13
    few = two_headed_samples(4)
    for found, wanted in zip(
        *(run_file(path, few, Kernels.EXACT) for path in (made, model)), strict=True
    ):
        assert np.abs(found - wanted).max() < 1e-5


def test_an_opset_that_cannot_be_converted_is_refused_with_its_number(
    tmp_path: Path,
    samples: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(model: object, version: int) -> None:
        raise RuntimeError(f"no adapter to {version}")

    monkeypatch.setattr("onnx.version_converter.convert_version", fail)
    model = write_two_headed_onnx(tmp_path / "model.onnx", opset=9)
    assert run(tmp_path, model, "--data", samples, "--recipe", "fp32") == 2
    said = error_of(capsys)
    assert (
        "has opset 9, at least 13 is needed, and it cannot be converted: no adapter to 13" in said
    )


def test_a_tflite_file_is_a_subject_too(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(make_tflite())
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32))
    assert (
        run(tmp_path, tmp_path / "net.tflite", "--data", tmp_path / "rows.npy", "--recipe", "fp32")
        == 0
    )
    (row,) = read_report(tmp_path).candidates
    assert (row.format.value, row.quality.exact, row.quality.samples) == ("tflite", 1.0, 3)


def test_what_cannot_be_done_is_one_line_with_the_remedy_before_anything_is_computed(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_two_headed_onnx(tmp_path / "two.onnx")
    rows = two_headed_samples()
    rows["b"][3, 2] = np.nan
    np.savez(tmp_path / "nan.npz", **rows)  # type: ignore[arg-type]
    (tmp_path / "task.py").write_text(
        "from support.compressor_rig import a_task\nTASK = a_task()\n"
    )
    fixed = write_free_axes_onnx(tmp_path / "four.onnx", batch=4)
    unknown = write_unknown_operator_onnx(tmp_path / "unknown.onnx")
    for subject, more, said in (
        (model, [], "two.onnx is a model file: give samples with --data"),
        (model, ["--data", tmp_path / "nan.npz"], "samples for 'b' hold NaN"),
        (model, ["--data", samples, "--format", "tflite"], "leave --format out"),
        (model, ["--data", samples, "--recipe", "distill50"], "recipe distill50: train needs a PyTorch network; a model file has none: give a task"),
        (tmp_path / "none.onnx", ["--data", samples], "none.onnx does not exist"),
        (fixed, ["--data", samples], "whose first axis is neither free nor 1"),
        (unknown, ["--data", samples], "com.acme:Wobble"),
        (tmp_path / "task.py", ["--data", samples], "--data belongs to a model file"),
    ):  # fmt: skip
        assert run(tmp_path, subject, *more) == 2
        assert said in error_of(capsys)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_pass_that_breaks_costs_its_candidate_and_no_other(
    tmp_path: Path,
    samples: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(stage: object) -> None:
        raise ValueError("out of luck\nand more")

    broken = next(key for key in FILE_PASSES if key[0] == "quantize_dynamic")
    monkeypatch.setitem(FILE_PASSES, broken, fail)
    model = write_two_headed_onnx(tmp_path / "two.onnx")
    assert run(tmp_path, model, "--data", samples, "--recipe", "fp32", "--recipe", "dynamic_w8", "--recipe", "static_w8a8_asym") == 2  # fmt: skip
    assert (
        error_of(capsys)
        == "error: [model.unreadable] dynamic_w8 (onnx): quantize_dynamic failed with ValueError: out of luck"
    )
    report = read_report(tmp_path)
    assert [row.recipe for row in report.candidates] == ["fp32", "static_w8a8_asym"]
    assert [(row.recipe, row.code.value) for row in report.failures] == [
        ("dynamic_w8", "model.unreadable")
    ]
    assert report.is_complete


def test_a_file_that_is_off_may_stand_in_the_middle_and_not_at_the_end(
    tmp_path: Path,
    samples: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = write_two_headed_onnx(tmp_path / "two.onnx")

    def spoil(stage: FileStage[FileSpec]) -> dict[str, float]:
        graph = onnx.load(stage.source)
        weights = graph.graph.initializer[0]
        noise = np.random.default_rng(0).normal(size=weights.dims).astype(np.float32)
        weights.CopyFrom(onnx.numpy_helper.from_array(noise * 9, weights.name))
        onnx.save(graph, stage.target)
        return {"noise": 9.0}

    def mend(stage: FileStage[FileSpec]) -> dict[str, float]:
        shutil.copyfile(model, stage.target)
        return {}

    (spoiler, mender) = (next(k for k in FILE_PASSES if k[0] == f"quantize_{name}" and k[1] is ONNX) for name in ("dynamic", "static"))  # fmt: skip
    monkeypatch.setitem(FILE_PASSES, spoiler, spoil)
    monkeypatch.setitem(FILE_PASSES, mender, mend)
    for name, passes in (("middle", ("dynamic", "static")), ("end", ("static", "dynamic"))):
        rows = "".join(f'[[passes]]\npass = "quantize_{row}"\n' for row in passes)
        (tmp_path / f"{name}.toml").write_text(f'name = "{name}"\nformats = ["onnx"]\n{rows}')
    files = ["--recipe-file", tmp_path / "middle.toml", "--recipe-file", tmp_path / "end.toml"]
    assert run(tmp_path, model, "--data", samples, *files) == 1
    assert "end (onnx): the quantized file does not compute its network" in error_of(capsys)
    report = read_report(tmp_path)
    assert [row.recipe for row in report.candidates] == ["middle"]
    assert not (tmp_path / "out" / "end.onnx").exists()
    given, spoiled, mended = report.candidates[0].steps
    assert spoiled.findings == {"noise": 9.0}
    assert spoiled.accuracy is not None
    assert spoiled.accuracy < 0.9
    assert (given.accuracy, mended.accuracy) == (1.0, 1.0)


def test_what_is_finished_is_written_when_somebody_interrupts(
    tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(stage: object) -> None:
        raise KeyboardInterrupt

    key = next(key for key in FILE_PASSES if key[0] == "quantize_static")
    monkeypatch.setitem(FILE_PASSES, key, interrupt)
    model = write_two_headed_onnx(tmp_path / "two.onnx")
    options = ["--data", samples, "--recipe", "dynamic_w8", "--recipe", "static_w8a8_asym"]
    assert run(tmp_path, model, *options) == 130
    report = read_report(tmp_path)
    assert [row.recipe for row in report.candidates] == ["dynamic_w8"]
    assert not report.is_complete
    assert (tmp_path / "out" / "dynamic_w8.onnx").is_file()
    assert json.loads((tmp_path / "out" / "results.json").read_text())["is_complete"] is False


def test_what_another_version_of_a_quantizer_made_is_not_taken_from_the_cache(
    tmp_path: Path,
    samples: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = write_two_headed_onnx(tmp_path / "two.onnx")
    options = (tmp_path, model, "--data", samples, "--recipe", "static_w8a8_asym")
    assert run(*options) == 0
    capsys.readouterr()
    assert run(*options) == 0
    assert "quantize_static" not in capsys.readouterr().err
    monkeypatch.setattr(file_line, "version", lambda name: f"{name} of tomorrow")
    assert run(*options) == 0
    told = capsys.readouterr().err
    assert "quantize_static" in told
    assert "evaluate the file after quantize_static" in told
