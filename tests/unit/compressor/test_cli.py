"""The command line: exit codes, one clear line per error, and files where they were asked for."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from support.compressor_rig import FakeControlPlane, FakeMaker, write_dense_onnx
from support.factories import NOW
from trimtab_compressor import build
from trimtab_compressor.cli import main
from trimtab_compressor.client import HttpControlPlane
from trimtab_compressor.commands import fit, push, recipes
from trimtab_compressor.fit_report import FitReport
from trimtab_compressor.package import read_artifact
from trimtab_compressor.run_report import RunReport
from trimtab_protocol.api import Artifact
from trimtab_protocol.budget import Metric
from trimtab_protocol.reading import known
from trimtab_protocol.signing import read_manifest

TASK = """
import numpy as np
from support.compressor_rig import a_task
from trimtab_compressor.task import Samples
x = np.random.default_rng(0).normal(size=(80, 64)).astype(np.float32)
rows = Samples(inputs=x, labels=np.zeros(80, np.int64))
TASK = a_task(input_shape=(64,), train=rows, test=rows, calibration=x[:10])
"""


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "task.py"
    path.write_text(TASK)
    return path


@pytest.fixture
def key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["keys", "new", "--out", str(tmp_path / "keys")]) == 0
    capsys.readouterr()
    return tmp_path / "keys" / "release.key"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weights = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    return write_dense_onnx(tmp_path / "dense.onnx", weights)


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: [")
    return lines[0]


def test_help_answers_at_once_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom trimtab_compressor.cli import build_parser\nbuild_parser().format_help()\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'pydantic', 'httpx', 'rich'}\n"
        "print(*(heavy & set(sys.modules)))\n"
    )
    started = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "\n", "")
    assert time.monotonic() - started < 3.0, "0.1 s on an idle machine"


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    assert "prune50_static_w8a8" in capsys.readouterr().out


def test_a_key_shows_the_same_id_from_both_halves(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "show", str(key)]) == 0
    private = capsys.readouterr().out
    assert main(["keys", "show", str(key.with_suffix(".pub"))]) == 0
    assert capsys.readouterr().out == private
    assert main(["keys", "new", "--out", str(key.parent)]) == 2
    assert "never overwritten" in error_line(capsys)


def test_an_unknown_recipe_ends_with_2_and_near_names(
    task_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["run", str(task_file), "--out", str(tmp_path / "o"), "--recipe", "prune50_static"]
    assert main(options) == 2
    assert "did you mean prune50_static_w8a8" in error_line(capsys)


def test_a_candidate_that_cannot_be_made_does_not_cost_the_others(
    task_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    maker = FakeMaker(tmp_path)
    maker.broken = {"dynamic_w8"}
    monkeypatch.setattr(build, "Builder", lambda *_: maker)
    options = ["run", str(task_file), "--out", str(tmp_path / "o"), "--format", "onnx"]
    assert main([*options, "--cache", str(tmp_path / "cache")]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == "error: [model.unreadable] dynamic_w8 (onnx): nothing was quantized"
    report = RunReport.model_validate_json((tmp_path / "o" / "results.json").read_text())
    assert "dynamic_w8" not in [row.recipe for row in report.candidates]
    assert len(report.candidates) == 6


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "run", interrupt)
    assert main(["recipes"]) == 130


def package(model: Path, key: Path, out: Path, *more: str) -> int:
    return main(
        ["package", str(model), "--name", "dense", "--version", "2", "--key", str(key),
         "--out", str(out), *more]
    )  # fmt: skip


def test_a_model_is_packaged_with_samples_from_a_file_or_a_task(
    model: Path, key: Path, task_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.ones((3, 64), np.float32)
    np.save(tmp_path / "rows.npy", rows)
    np.savez(tmp_path / "rows.npz", x=rows)
    for number, source in enumerate(
        (
            ["--samples", str(tmp_path / "rows.npy")],
            ["--samples", str(tmp_path / "rows.npz")],
            ["--task", str(task_file)],
        )
    ):
        out = tmp_path / f"out{number}"
        budgets = ["--budget", "p90_ms=3", "--budget", "pi4:p90_ms=5"]
        assert package(model, key, out, *source, *budgets) == 0
        artifact = read_artifact(out / "dense-2.manifest.json")
        assert artifact.manifest.budget_for("pi4").limits[Metric.P90_MS] == 5.0
        assert artifact.manifest.budget_for("other").limits[Metric.P90_MS] == 3.0
        assert "dense@2" in capsys.readouterr().out


def test_samples_of_the_wrong_shape_or_none_at_all_end_with_2(
    model: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "rows.npy", np.ones((3, 63), np.float32))
    assert package(model, key, tmp_path / "o", "--samples", str(tmp_path / "rows.npy")) == 2
    assert "[63], the model takes [64]" in error_line(capsys)
    (tmp_path / "text.npy").write_text("no arrays")
    for name in ("text.npy", "none.npy"):
        assert package(model, key, tmp_path / "o", "--samples", str(tmp_path / name)) == 2
        assert name in error_line(capsys)


def test_a_model_that_cannot_be_read_ends_with_2_and_its_code(
    key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"junk")
    np.save(tmp_path / "rows.npy", np.ones((3, 64), np.float32))
    assert package(bad, key, tmp_path / "o", "--samples", str(tmp_path / "rows.npy")) == 2
    assert "[model.unreadable]" in error_line(capsys)


def test_a_packaged_artifact_is_pushed(
    model: Path,
    key: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(tmp_path / "rows.npy", np.ones((3, 64), np.float32))
    package(model, key, tmp_path / "o", "--samples", str(tmp_path / "rows.npy"))
    manifest_path = tmp_path / "o" / "dense-2.manifest.json"
    artifact = read_artifact(manifest_path)
    stored: list[bytes] = []

    def handle(request: httpx.Request) -> httpx.Response:
        stored.append(request.read())
        known_now = Artifact(ref=artifact.manifest.ref(), signed=artifact.signed, created_at=NOW)
        return httpx.Response(201, content=known_now.model_dump_json())

    plane = HttpControlPlane("http://x", "t", report=print, transport=httpx.MockTransport(handle))
    monkeypatch.setattr(push, "open_control_plane", lambda _: plane)
    assert main(["push", str(manifest_path)]) == 0
    assert stored[0] == model.read_bytes()
    assert "dense@2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "--url is missing"),
        (["--url", "http://x"], "--token is missing"),
        (["--url", "x:1", "--token", "t"], "must begin with http"),
    ],
)
def test_a_server_that_is_not_named_ends_with_2(
    *,
    more: list[str],
    said: str,
    task_file: Path,
    key: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("TRIMTAB_URL", raising=False)
    monkeypatch.delenv("TRIMTAB_TOKEN", raising=False)
    assert main(["fit", str(task_file), "--class", "pi4", "--key", str(key), *more]) == 2
    assert said in error_line(capsys)


class Plane(FakeControlPlane):
    def __enter__(self) -> Plane:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def fit_on(
    plane: Plane, task_file: Path, key: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> int:
    maker = FakeMaker(task_file.parent)
    monkeypatch.setattr(fit, "open_control_plane", lambda _: plane)
    monkeypatch.setattr(build, "Builder", lambda *_: maker)
    options = ["fit", str(task_file), "--class", "pi4", "--key", str(key), "--format", "onnx"]
    options += ["--cache", str(task_file.parent / "cache"), "--budget", "p90_ms=5"]
    return main([*options, *more])


def test_a_fit_writes_its_report_and_the_chosen_model(
    task_file: Path,
    key: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plane = Plane({"fp32": known(9.0), "dynamic_w8": known(1.0)})
    more = ["--max-drop", "0.01", "--processes", "2", "--min-runs", "64", "--min-steady-s", "0.1"]
    more += ["--warm-up-s", "0", "--json", str(tmp_path / "fit.json"), "--out", str(tmp_path / "o")]
    more += ["--paced-period-ms", "50", "--energy-windows", "0"]
    assert fit_on(plane, task_file, key, monkeypatch, *more) == 0
    report = FitReport.model_validate_json((tmp_path / "fit.json").read_text())
    assert report.chosen is not None
    assert report.chosen.recipe == "dynamic_w8"
    assert report.measure.processes == 2
    assert (report.measure.paced_period_ms, report.measure.energy_windows) == (50, 0)
    assert report.budgets["pi4"].limits[Metric.ACCURACY_DROP] == 0.01
    assert read_artifact(tmp_path / "o" / "bars-2.manifest.json").manifest.version == 2
    captured = capsys.readouterr()
    assert "chosen: dynamic_w8 (onnx) bars@2" in captured.out
    assert "measure bars@1 on pi4" in captured.err


def test_a_model_file_is_fitted_with_samples_instead_of_a_task(
    model: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(80, 64)).astype("f4"))
    plane = Plane({"fp32": known(9.0), "dynamic_w8": known(1.0)})
    more = ["--data", str(tmp_path / "rows.npy"), "--json", str(tmp_path / "fit.json")]
    assert fit_on(plane, model, key, monkeypatch, *more) == 0
    report = FitReport.model_validate_json((tmp_path / "fit.json").read_text())
    assert (report.task, report.chosen and report.chosen.recipe) == ("dense", "dynamic_w8")
    lineage = read_manifest(plane.artifacts[0].signed).lineage
    assert lineage.seed is None
    assert set(lineage.data_sha256) == {"test", "calibration"}


def test_a_budget_that_nothing_keeps_ends_with_2_and_still_writes_the_report(
    task_file: Path,
    key: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plane = Plane({"fp32": known(9.0), "dynamic_w8": known(6.0)})
    more = ["--recipe", "fp32", "--recipe", "dynamic_w8", "--json", str(tmp_path / "fit.json")]
    assert fit_on(plane, task_file, key, monkeypatch, *more) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: [rejected.budget]")
    assert "dynamic_w8 (onnx), misses by 20.0%" in last
    assert FitReport.model_validate_json((tmp_path / "fit.json").read_text()).chosen is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--processes", "0"], "processes"),
        (["--budget", "speed=1"], "unknown metric"),
        (["--json", "/no/such/folder/fit.json"], "its folder does not exist"),
        (["--name", "Not A Name"], "--name 'Not A Name' is no name"),
        (["--class", "Pi 4"], "--class 'Pi 4' is no name"),
        (["--probation-s", "-1"], "probation_s"),
        (["--max-drop", "-0.1"], "not a ratio"),
    ],
)
def test_wrong_arguments_end_with_2_before_anything_is_measured(
    *,
    more: list[str],
    said: str,
    task_file: Path,
    key: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plane = Plane({})
    assert fit_on(plane, task_file, key, monkeypatch, *more) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert plane.trials == []


def test_a_reader_that_has_enough_is_no_error() -> None:
    code = (
        "from trimtab_compressor.commands import recipes; from trimtab_compressor.cli import main; "
        "recipes.run = lambda _: print('row\\n' * 100_000); main(['recipes'])"
    )
    command = f"'{sys.executable}' -c \"{code}\" | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert done.stderr == b""
