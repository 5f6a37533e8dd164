"""The command line: exit codes, one line for each error, and what a person at the device sees."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from support.agent_rig import AgentRig
from support.artifacts import make_artifact
from support.factories import OWNER_KEY, a_measurement
from support.tiny_models import make_onnx
from trimtab_agent import by_hand, cli, tables
from trimtab_agent.by_hand import MeasuredFiles
from trimtab_agent.config import MeasureSettings
from trimtab_agent.measure.run import Bench
from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.errors import ErrorCode, StorageError
from trimtab_protocol.measurement import (
    Comparison,
    Energy,
    Heat,
    Measurement,
    MeasureSpec,
    Operator,
    OperatorProfile,
    PacedLatency,
    Stability,
    Zone,
)
from trimtab_protocol.reading import Reading, absent, known
from trimtab_protocol.signing import encode_key, public_key_of

CHUNK = 1024


def write_config(folder: Path) -> Path:
    credentials = DeviceCredentials(
        device="pi-1", site="lab", mqtt_host="b", mqtt_port=1, username="u", password="p"
    )
    (folder / "credentials.json").write_text(credentials.model_dump_json())
    key = encode_key(public_key_of(OWNER_KEY))
    path = folder / "agent.toml"
    path.write_text(
        f'state_dir = "state"\ncredentials = "credentials.json"\ntrusted_keys = ["{key}"]\n'
    )
    return path


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.onnx", None, "is not a file"),
        ("model.txt", b"text", r"ends in .txt; known are .onnx, .tflite"),
        ("model", b"text", "ends in nothing"),
    ],
)
def test_a_file_that_is_no_model_is_wrong_input(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    says: str,
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["measure", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: [model.unreadable] ")
    assert says in error
    assert len(error.splitlines()) == 1


def test_a_file_that_cannot_be_read_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.symlink_to("/proc/self/mem")  # a file that even root cannot read from its start
    assert cli.main(["measure", str(path)]) == 2
    assert "model.unreadable" in capsys.readouterr().err


def test_a_file_of_garbage_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"garbage")
    assert cli.main(["measure", str(path), "--processes", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: [model.load] ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["measure"],
        ["measure", "m.onnx", "--processes", "0"],
        ["measure", "m.onnx", "--processes", "51"],
        ["measure", "m.onnx", "--threads", "257"],
        ["measure", "m.onnx", "--threads", "two"],
        ["measure", "m.onnx", "--seconds", "-1"],
        ["measure", "m.onnx", "--seconds", "601"],
        ["measure", "m.onnx", "--seconds", "nan"],
        ["measure", "m.onnx", "--paced-ms", "0.5"],
        ["measure", "m.onnx", "--energy-windows", "0"],
    ],
)
def test_wrong_arguments_exit_with_2_and_say_how_it_is_used(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: trimtab-agent" in capsys.readouterr().err


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, MeasureSpec]]:
    """Instead of measuring: what was asked for, and a measurement."""
    asked: list[tuple[Any, MeasureSpec]] = []

    def measure(bench: Bench, subject: Any, spec: MeasureSpec) -> Measurement:
        asked.append((subject, spec))
        bench.on_progress(1.0, "process 1 of 1")
        return a_measurement(
            artifact=subject.artifact, size_bytes=subject.size_bytes, stability=Stability.NOISY
        )

    monkeypatch.setattr(by_hand, "measure", measure)
    return asked


@pytest.mark.parametrize(
    ("file", "slug"),
    [
        ("Digits Int8.onnx", "digits-int8"),
        ("_private.onnx", "private"),
        ("..dots.onnx", "dots"),
        ("数字.onnx", "model"),
        ("x" * 100 + ".onnx", "x" * 64),
        ("MODEL.ONNX", "model"),
    ],
)
def test_every_file_name_gives_a_name_of_the_protocol(
    tmp_path: Path, measured: list[tuple[Any, MeasureSpec]], file: str, slug: str
) -> None:
    path = tmp_path / file
    path.write_bytes(make_onnx())
    assert cli.main(["measure", str(path)]) == 0
    assert measured[0][0].artifact.name == slug


def test_what_was_asked_for_is_what_is_measured(
    tmp_path: Path, measured: list[tuple[Any, MeasureSpec]]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make_onnx())
    cli.main(["measure", str(path), "--processes", "3", "--seconds", "0.5"])
    subject, spec = measured[0]
    assert (spec.processes, spec.min_steady_s) == (3, 0.5)
    assert (spec.min_runs, spec.max_process_s) == (200, 120.5)
    assert subject.size_bytes == path.stat().st_size


def test_a_slow_model_can_be_given_fewer_runs_and_more_time(
    tmp_path: Path, measured: list[tuple[Any, MeasureSpec]]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make_onnx())
    cli.main(["measure", str(path), "--min-runs", "11", "--max-process-s", "900"])
    cli.main(["measure", str(path), "--seconds", "600"])
    (_, slow), (_, long) = measured
    assert (slow.min_runs, slow.max_process_s) == (11, 900.0)
    assert long.max_process_s > long.min_steady_s + long.warm_up_s


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_a_measurement_lets_it_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    cleaned: list[bool] = []

    def measure(*_: Any) -> Measurement:
        try:
            signal.raise_signal(number)
            time.sleep(10)
        finally:
            cleaned.append(True)
        return a_measurement()

    monkeypatch.setattr(by_hand, "measure", measure)
    monkeypatch.setattr(signal, "getsignal", lambda _number: signal.SIG_DFL)
    path = tmp_path / "model.onnx"
    path.write_bytes(make_onnx())
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as caught:
            cli.main(["measure", str(path)])
    finally:
        signal.signal(number, before)
    assert caught.value.code == 128 + number
    assert cleaned == [True]


def test_a_terminal_that_is_closed_under_nohup_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: Any) -> Measurement:
        signal.raise_signal(signal.SIGHUP)
        return a_measurement()

    monkeypatch.setattr(by_hand, "measure", measure)
    path = tmp_path / "model.onnx"
    path.write_bytes(make_onnx())
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli.main(["measure", str(path)]) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_whoever_measures_by_hand_waits_for_the_service_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_by_hand() -> str | None:
        return by_hand.settings_by_hand(threads=1, is_spinning_allowed=False).lock

    monkeypatch.setattr(by_hand, "SERVICE_LOCK", tmp_path / "trimtab" / "measure.lock")
    assert lock_by_hand() == MeasureSettings().lock
    (tmp_path / "trimtab").mkdir()
    assert lock_by_hand() == str(tmp_path / "trimtab" / "measure.lock")
    monkeypatch.setattr("os.access", lambda *_: False)  # not root: only if the service made it
    assert lock_by_hand() == MeasureSettings().lock
    (tmp_path / "trimtab" / "measure.lock").touch()
    assert lock_by_hand() == str(tmp_path / "trimtab" / "measure.lock")


def test_pace_and_energy_windows_are_in_the_spec(
    tmp_path: Path, measured: list[tuple[Any, MeasureSpec]]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make_onnx())
    cli.main(["measure", str(path), "--paced-ms", "33.3", "--energy-windows", "7"])
    cli.main(["measure", str(path), "--no-energy"])
    (_, first), (_, second) = measured
    assert (first.paced_period_ms, first.energy_windows) == (33.3, 7)
    assert (second.paced_period_ms, second.energy_windows) == (None, 0)


def test_samples_and_meter_are_those_that_were_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str | None, str | None]] = []

    def measure(bench: Bench, _subject: Any, _spec: MeasureSpec) -> Measurement:
        seen.append((bench.settings.samples_dir, bench.settings.meter))
        return a_measurement()

    monkeypatch.setattr(by_hand, "measure", measure)
    path = tmp_path / "model.onnx"
    path.write_bytes(make_onnx())
    cli.main(["measure", str(path), "--samples", str(tmp_path / "kept"), "--meter", "watts.csv"])
    cli.main(["measure", str(path)])
    assert seen == [(str(tmp_path / "kept"), "watts.csv"), (None, None)]
    warnings = capsys.readouterr().err.splitlines()
    assert warnings == [f"warning: the samples could not be written to {tmp_path / 'kept'}"]


def test_the_table_shows_pace_memory_and_energy_where_they_are() -> None:
    measurement = a_measurement()
    paced = PacedLatency(period_ms=20.0, latency=measurement.latency, late=2)
    memory = measurement.memory.model_copy(
        update={"pss_bytes": known(40_000_000.0), "uss_bytes": known(30_000_000.0)}
    )
    energy = Energy(
        per_inference_mj=known(1.5),
        scope="board",
        gross_mj=known(3.0),
        uncertainty_mj=known(0.1),
    )
    table = tables.render(
        measurement.model_copy(update={"paced": paced, "memory": memory, "energy": energy})
    )
    assert "paced p50  10.0000 [9.5000, 10.5000] ms, one per 20 ms, 2 late" in table
    assert "USS  30,000,000 bytes of this process alone" in table
    assert "energy  1.5000 mJ per inference above idle (board)" in table
    assert "with idle power  3.0000 mJ per inference" in table
    assert "uncertainty  0.1000 mJ" in table


def test_the_table_shows_intervals_and_the_reason_for_what_is_absent(
    tmp_path: Path, measured: list[tuple[Any, MeasureSpec]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make_onnx())
    assert cli.main(["measure", str(path)]) == 0
    table = capsys.readouterr().out
    assert "p50  10.0000 [9.5000, 10.5000] ms" in table
    assert "load  25.0000 ms" in table
    assert "peak memory  60,000,000 bytes" in table
    assert "energy  unavailable: no power sensor" in table
    assert "stability  noisy" in table


def test_json_can_be_read_back(
    tmp_path: Path, measured: list[tuple[Any, MeasureSpec]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make_onnx())
    assert cli.main(["measure", str(path), "--json"]) == 0
    assert Measurement.model_validate_json(capsys.readouterr().out).size_bytes > 0


def test_progress_is_shown_to_a_person_and_not_to_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with tables.ProgressBar() as bar:
        bar(0.5, "process 1 of 2")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with tables.ProgressBar(width=10) as bar:
        bar(0.5, "process 1 of 2")
        bar(1.0, "process 2 of 2")
    _, begun, first, second = capsys.readouterr().err.split("\r\x1b[K")
    assert begun == "[..........]   0% starting"
    assert first.startswith("[#####.....]  50% process 1 of 2, about ")
    assert second == "[##########] 100% process 2 of 2\n"


def test_an_error_stands_on_a_line_of_its_own_below_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        with tables.ProgressBar() as bar:
            bar(0.999999, "process 2 of 2")
            raise StorageError("as the test says")

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with pytest.raises(StorageError):
        fail()
    assert capsys.readouterr().err.endswith("left\n")


def test_the_bar_tells_what_is_left_at_this_pace() -> None:
    assert tables.bar_line(0.25, "energy", 30.0, 4) == "[#...]  25% energy, about 90 s left"
    assert tables.bar_line(0.0, "", 1.0, 4) == "[....]   0% "


def test_bytes_are_shown_whole_and_an_absent_value_with_its_reason() -> None:
    assert tables._text(known(1234567.0, 1.0, 2.0), "bytes") == "1,234,567 [1, 2] bytes"
    assert tables._text(absent("why"), "ms") == "absent: why"


@pytest.fixture
def deployed(tmp_path: Path) -> Path:
    """A configuration whose device went from version 1 to version 2."""
    config = write_config(tmp_path)
    rig = AgentRig(tmp_path / "state")
    for version in (1, 2):
        payload = bytes([version]) * (CHUNK + 1)
        rig.desire(*make_artifact("digits", version, payload, chunk_bytes=CHUNK))
        rig.settle()
    return config


def test_status_says_what_is_active_where_and_what_is_behind_it(
    deployed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "--config", str(deployed)]) == 0
    path = deployed.parent / "state" / "models" / "digits" / "active" / "model.onnx"
    text = capsys.readouterr().out
    assert text == f"digits: active digits@2 at {path}, last good digits@1\n"
    assert path.read_bytes() == bytes([2]) * (CHUNK + 1)


def test_status_as_json_says_whether_the_file_is_whole(
    deployed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["status", "--config", str(deployed), "--json"])
    row = json.loads(capsys.readouterr().out)["digits"]
    assert (row["active"], row["last_good"], row["is_whole"]) == ("digits@2", "digits@1", True)
    model = Path(row["path"])
    model.chmod(0o644)
    model.write_bytes(b"damaged")
    cli.main(["status", "--config", str(deployed), "--json"])
    assert json.loads(capsys.readouterr().out)["digits"]["is_whole"] is False


def test_status_of_a_device_whose_only_model_was_taken_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    rig = AgentRig(tmp_path / "state")
    rig.children.verdicts["digits@1:check"] = (ErrorCode.MODEL_CRASH, "SIGSEGV")
    rig.desire(*make_artifact("digits", 1, b"x" * CHUNK, chunk_bytes=CHUNK))
    rig.settle()
    assert cli.main(["status", "--config", str(config)]) == 0
    assert "digits: active None" in capsys.readouterr().out


def test_status_of_a_new_device_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--config", str(write_config(tmp_path))]) == 0
    assert capsys.readouterr().out == "no model has been deployed to pi-1 yet\n"


@pytest.mark.parametrize(
    ("error", "code"), [(StorageError("the disk is gone"), 1), (KeyboardInterrupt(), 130)]
)
def test_an_error_is_a_line_and_an_exit_code_and_never_a_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    def fail(*_arguments: object, **_named: object) -> str:
        raise error

    monkeypatch.setattr(by_hand, "read_status", fail)
    assert cli.main(["status", "--config", str(write_config(tmp_path))]) == code
    assert len(capsys.readouterr().err.splitlines()) <= 1


@pytest.mark.parametrize(
    ("ratio", "sentence"),
    [
        (known(0.8, 0.7, 0.9), "the first is faster: it takes 80.0% of the other's time"),
        (known(1.3, 1.1, 1.5), "the first is slower: it takes 130.0% of the other's time"),
        (known(0.99, 0.9, 1.1), "they cannot be told apart: the interval of the ratio contains 1"),
        (absent("too few runs"), "cannot be told: too few runs"),
    ],
)
def test_a_comparison_ends_in_a_sentence(ratio: Reading, sentence: str) -> None:
    other = a_measurement()
    comparison = Comparison(incumbent=other.artifact, p50_ratio=ratio, p90_ratio=ratio)
    found = MeasuredFiles(measurement=a_measurement(), against=other, comparison=comparison)
    assert f"verdict  {sentence}" in tables.render_measured(found)


def test_too_few_processes_give_no_verdict_however_clear_the_ratio_looks() -> None:
    other = a_measurement()
    few = other.model_copy(update={"latency": other.latency.model_copy(update={"processes": 4})})
    ratio = known(0.4, 0.39, 0.41)
    comparison = Comparison(incumbent=other.artifact, p50_ratio=ratio, p90_ratio=ratio)
    found = MeasuredFiles(measurement=few, against=other, comparison=comparison)
    table = tables.render_measured(found)
    assert "verdict  cannot be told from 4 process(es) of each: use --processes 5 or more" in table


def test_heat_and_operators_are_in_the_table() -> None:
    zone = Zone(name="cpu-thermal", before=known(50.0), highest=known(61.5), after=known(60.0))
    heat = Heat(zones=(zone,), highest_clock_share=known(0.97))
    row = Operator(name="conv1", op="Conv", calls=50, total_us=900.0, p50_us=18.0, share=0.75)
    profile = OperatorProfile(operators=(row,), runs=50)
    measurement = a_measurement().model_copy(update={"heat": heat, "operators": profile})
    table = tables.render(measurement)
    assert "cpu-thermal  50.0000 °C, at most 61.5000 °C" in table
    assert "at full clock  97% of the time" in table
    assert "operators   75.0%  Conv  conv1" in table
    missing = {"operators": OperatorProfile(absent="another version")}
    table = tables.render(measurement.model_copy(update=missing))
    assert "operators  absent: another version" in table
