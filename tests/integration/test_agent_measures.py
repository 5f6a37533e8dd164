"""`trimtab-agent measure` as a real process on a real model: what it finds, and that it is alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.tiny_models import make_onnx
from support.tiny_tflite import make_tflite
from trimtab_agent import cli
from trimtab_agent.by_hand import MeasuredFiles
from trimtab_protocol.measurement import Measurement
from trimtab_protocol.reading import Reading


def measure_command(path: Path, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "trimtab_agent.cli", "measure", str(path)]
    return [*command, "--seconds", "0.2", *arguments]


def run_measure(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = measure_command(path, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "small.onnx").write_bytes(make_onnx(layers=20))
    (folder / "large.onnx").write_bytes(make_onnx(layers=20, padding_bytes=80_000_000))
    (folder / "small.tflite").write_bytes(make_tflite())
    (folder / "garbage.onnx").write_bytes(b"garbage")
    return folder


@pytest.fixture(scope="module")
def measured(folder: Path) -> Measurement:
    done = run_measure(folder / "small.onnx", "--processes", "2", "--json")
    assert done.returncode == 0, done.stderr
    return Measurement.model_validate_json(done.stdout)


def test_json_on_stdout_is_a_measurement_of_the_file(measured: Measurement, folder: Path) -> None:
    assert measured.artifact.name == "small"
    assert measured.size_bytes == (folder / "small.onnx").stat().st_size
    assert measured.condition.runtime_package == "onnxruntime"
    assert measured.latency.processes == 2
    assert measured.latency.runs >= 400


def test_percentiles_have_intervals_that_contain_them_and_are_in_order(
    measured: Measurement,
) -> None:
    latency = measured.latency
    found: list[Reading] = [latency.p50_ms, latency.p90_ms, latency.p95_ms]
    for reading in found:
        assert reading.interval is not None
        assert 0 < reading.interval.low <= reading.known() <= reading.interval.high
    values = [reading.known() for reading in found]
    assert values == sorted(values)
    assert latency.max_ms.known() >= values[-1]


def test_the_phases_of_the_cold_start_are_there(measured: Measurement) -> None:
    cold = measured.cold_start
    for phase in (cold.spawn_ms, cold.import_ms, cold.load_ms, cold.first_inference_ms):
        assert phase.known() > 0


def test_energy_is_measured_or_absent_with_a_reason(measured: Measurement) -> None:
    """[P-7.1]"""
    energy = measured.energy.per_inference_mj
    assert (energy.value is None) == bool(energy.absent)
    if energy.value is None:
        assert energy.absent


def test_memory_is_that_of_the_process_that_ran_the_model(
    measured: Measurement, folder: Path
) -> None:
    """[P-7.5]"""
    done = run_measure(folder / "large.onnx", "--processes", "1", "--json")
    large = Measurement.model_validate_json(done.stdout)
    grown = large.memory.peak_bytes.known() - measured.memory.peak_bytes.known()
    assert grown > 50_000_000, "a model of 80 MB more takes that much more"
    for memory in (measured.memory, large.memory):
        assert memory.peak_bytes.known() > memory.baseline_bytes.known()
        assert memory.over_baseline_bytes.known() > 0
    assert measured.memory.baseline_bytes.known() < 200_000_000


def test_a_tflite_model_is_measured_too(folder: Path) -> None:
    done = run_measure(folder / "small.tflite", "--processes", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = Measurement.model_validate_json(done.stdout)
    assert found.condition.runtime_package == "ai-edge-litert"
    assert found.latency.p50_ms.known() > 0


def test_without_json_a_person_reads_a_table_and_nothing_else_is_on_stdout(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(folder / "small.onnx")
    assert cli.main(["measure", path, "--processes", "1", "--seconds", "0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 16  # a machine with temperature zones has a row for each
    assert all(re.match(r" *\S.{0,20}?  \S", line) for line in lines), lines
    assert lines[0].split("  ")[-1].startswith("small, ")


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("none.onnx", 2, "model.unreadable"),
        ("garbage.onnx", 2, "model.load"),
    ],
)
def test_what_cannot_be_measured_is_one_line_on_stderr(
    folder: Path, name: str, code: int, says: str
) -> None:
    done = run_measure(folder / name)
    assert done.returncode == code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


def test_two_that_measure_at_once_take_turns(folder: Path) -> None:
    command = measure_command(folder / "small.onnx", "--processes", "2", "--json")
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    spans = sorted(span_of(json.loads(text)) for text in outputs)
    assert spans[1][0] >= spans[0][1] - 0.05, f"{spans} overlap"


def span_of(found: dict[str, float]) -> tuple[float, float]:
    return found["started_at"], found["started_at"] + found["duration_s"]


def test_the_record_says_what_the_device_was_like_while_it_measured(measured: Measurement) -> None:
    assert measured.heat is not None
    share = measured.heat.highest_clock_share
    assert share.value is not None or share.absent
    assert len(measured.condition.fingerprint) == 64
    assert measured.condition.operating_system
    assert measured.operators is None  # nobody asked for a profile


def test_two_files_are_compared_and_the_verdict_is_a_sentence(folder: Path) -> None:
    small, other = folder / "small.onnx", folder / "small.tflite"
    done = run_measure(small, "--processes", "2", "--against", str(other), "--json")
    assert done.returncode == 0, done.stderr
    found = MeasuredFiles.model_validate_json(done.stdout)
    assert found.against is not None
    assert found.comparison is not None
    assert found.measurement.condition.runtime_package == "onnxruntime"
    assert found.against.condition.runtime_package == "ai-edge-litert"
    ratio = found.comparison.p50_ratio
    assert ratio.low_or_value() <= ratio.known() <= ratio.high_or_value()
    table = run_measure(small, "--processes", "1", "--against", str(other)).stdout
    assert "p50 ratio" in table
    assert "  verdict  " in table


@pytest.mark.parametrize("name", ["small.onnx", "small.tflite"])
def test_a_profile_says_which_operators_took_the_time(folder: Path, name: str) -> None:
    done = run_measure(folder / name, "--processes", "1", "--profile", "--json")
    assert done.returncode == 0, done.stderr
    profile = Measurement.model_validate_json(done.stdout).operators
    assert profile is not None
    assert profile.absent is None
    assert profile.operators
    assert profile.slowdown is not None


def test_a_reader_that_closes_the_pipe_sees_no_traceback(folder: Path) -> None:
    command = measure_command(folder / "small.onnx", "--processes", "1", "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaints = process.stderr.read().decode()
        assert process.wait(60) == 141
    assert "Traceback" not in complaints
    assert "BrokenPipe" not in complaints
