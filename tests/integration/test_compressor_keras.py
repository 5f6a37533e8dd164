"""A Keras model on PyTorch becomes both formats; skipped where the extra is not installed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from trimtab_compressor.cli import main
from trimtab_compressor.run_report import RunReport

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")


def write_two_inputs(path: Path) -> Path:
    image, extra = keras.Input((8, 8, 1), name="img"), keras.Input((4,), name="extra")
    features = keras.layers.Conv2D(8, 3, activation="relu")(image)
    features = keras.layers.GlobalAveragePooling2D()(features)
    scores = keras.layers.Dense(3)(keras.layers.Concatenate()([features, extra]))
    keras.Model([image, extra], scores).save(path)
    return path


def test_a_keras_model_of_two_inputs_becomes_both_formats(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    image = random.normal(size=(20, 8, 8, 1)).astype(np.float32)
    extra = random.normal(size=(20, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", img=image, extra=extra)
    model = write_two_inputs(tmp_path / "net.keras")
    options = ["run", str(model), "--data", str(tmp_path / "data.npz"), "--recipe", "fp32"]
    options += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main(options) == 0
    report = RunReport.model_validate_json((tmp_path / "out" / "results.json").read_text())
    assert [row.file for row in report.candidates] == ["fp32.onnx", "fp32.tflite"]
    assert [row.quality.exact for row in report.candidates] == [1.0, 1.0]


def test_what_is_no_keras_model_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.keras").write_text("junk")
    np.save(tmp_path / "rows.npy", np.zeros((4, 4), np.float32))
    options = ["run", str(tmp_path / "net.keras"), "--data", str(tmp_path / "rows.npy")]
    assert main([*options, "--out", str(tmp_path / "o"), "--cache", str(tmp_path / "c")]) == 2
    assert "net.keras cannot be read as a Keras model" in capsys.readouterr().err
