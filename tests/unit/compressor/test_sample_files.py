"""Samples for a model file, from every form in which they may be given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab_compressor.sample_files import SampleSet, read_sample_set, split_samples
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import IoSpec, TensorSpec

X = np.arange(24, dtype=np.float32).reshape(6, 4)
IDS = np.arange(12, dtype=np.int64).reshape(6, 2)


def tensor(name: str, dtype: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


OUTPUT = tensor("y", "float32", None, 3)
ONE = IoSpec(inputs=(tensor("x", "float32", None, 4),), outputs=(OUTPUT,))
TWO = IoSpec(
    inputs=(tensor("x", "float32", None, 4), tensor("ids", "int64", None, None)), outputs=(OUTPUT,)
)


def save_per_input(folder: Path) -> Path:
    np.save(folder / "x.npy", X)
    np.save(folder / "ids.npy", IDS)
    return folder


def save_per_sample(folder: Path) -> Path:
    for row in range(6):
        np.savez(folder / f"{row:03}.npz", x=X[row], ids=IDS[row])
    return folder


def save_npz(folder: Path) -> Path:
    np.savez(folder / "data.npz", x=X, ids=IDS)
    return folder / "data.npz"


@pytest.mark.parametrize("save", [save_per_input, save_per_sample, save_npz])
def test_all_forms_give_the_same_samples_of_several_inputs(tmp_path: Path, save: object) -> None:
    found = read_sample_set(save(tmp_path), TWO)  # type: ignore[operator]
    assert list(found.inputs) == ["x", "ids"]
    assert np.array_equal(found.inputs["x"], X)
    assert np.array_equal(found.inputs["ids"], IDS)
    assert found.labels is None


def test_one_input_may_have_any_name_and_samples_a_batch_axis(tmp_path: Path) -> None:
    np.save(tmp_path / "anything.npy", X)
    assert np.array_equal(read_sample_set(tmp_path / "anything.npy", ONE).inputs["x"], X)
    folder = tmp_path / "samples"
    folder.mkdir()
    np.save(folder / "a.npy", X[0])
    np.save(folder / "b.npy", X[1:2])
    assert np.array_equal(read_sample_set(folder, ONE).inputs["x"], X[:2])


def test_labels_come_from_the_samples_or_from_a_file_of_their_own(tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, 0, 1, 2], np.int32)
    np.savez(tmp_path / "data.npz", x=X, labels=labels)
    found = read_sample_set(tmp_path / "data.npz", ONE).labels
    assert found is not None
    assert found.tolist() == labels.tolist()
    (tmp_path / "labels.txt").write_text("2\n2\n2\n1\n1\n1\n")
    found = read_sample_set(tmp_path / "data.npz", ONE, tmp_path / "labels.txt").labels
    assert found is not None
    assert found.tolist() == [2, 2, 2, 1, 1, 1]


def test_calibration_and_test_samples_are_apart_with_their_labels() -> None:
    samples = SampleSet({"x": X}, np.arange(6))
    calibration, test = split_samples(samples)
    assert (len(calibration), len(test)) == (3, 3)
    assert test.labels is not None
    assert test.labels.tolist() == [3, 4, 5]
    many = SampleSet({"x": np.zeros((1000, 4), np.float32)}, None)
    assert [len(row) for row in split_samples(many)] == [300, 700]
    with pytest.raises(ConfigError, match="one sample cannot both"):
        split_samples(SampleSet({"x": X[:1]}, None))


def nan_rows() -> dict[str, np.ndarray]:
    rows = X.copy()
    rows[2, 1] = np.nan
    return {"x": rows}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X[:0]}, "at least one"),
        ({"x": X[:, :3]}, "have shape [3], the model takes [4]"),
        ({"x": X.astype(np.int32)}, "are int32, the model takes float32"),
        (nan_rows(), "hold NaN or infinite"),
        ({"x": X, "z": X}, "arrays are named ['x', 'z'], the model's inputs ['x']"),
        (
            {"x": X, "labels": np.arange(6)},
            "labels run from 0 to 5, the model's first output has 3",
        ),
        ({"x": X, "labels": np.zeros(5, int)}, "shape [5] for 6 samples"),
        ({"x": X, "labels": np.zeros(6)}, "labels are float64"),
        ({"x": X, "labels": np.full(6, -1)}, "labels run from -1"),
    ],
)
def test_samples_that_do_not_fit_are_named_with_the_remedy(
    tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        read_sample_set(tmp_path / "data.npz", ONE)
    assert said in caught.value.message


def test_folders_that_hold_no_samples_say_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no \.npy or \.npz files"):
        read_sample_set(tmp_path, ONE)
    np.save(tmp_path / "a.npy", X[0])
    with pytest.raises(ConfigError, match=r"a\.npy has no array 'x'; .*one array per input"):
        read_sample_set(tmp_path, TWO)
    np.save(tmp_path / "b.npy", X[0, :2])
    with pytest.raises(ConfigError, match=r"a\.npy is \[4\], b\.npy is \[2\]"):
        read_sample_set(tmp_path, ONE)


def test_paths_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"do not exist; give a \.npz"):
        read_sample_set(tmp_path / "none.npz", ONE)
    (tmp_path / "bad.npz").write_text("junk")
    with pytest.raises(ConfigError, match=r"bad\.npz cannot be read"):
        read_sample_set(tmp_path / "bad.npz", ONE)
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "labels.txt").write_text("cat\n")
    with pytest.raises(ConfigError, match=r"labels .*labels\.txt cannot be read"):
        read_sample_set(tmp_path / "x.npy", ONE, tmp_path / "labels.txt")
