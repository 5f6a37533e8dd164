"""What the doctor finds, and whether its words help."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support import board_layouts as boards
from support.factories import OWNER_KEY
from trimtab_agent import cli, doctor
from trimtab_agent.doctor import Device, Finding, Level, examine, is_healthy, render, render_json
from trimtab_agent.energy.base import NoSensor
from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.manifest import RuntimeName
from trimtab_protocol.messages import RuntimeFact
from trimtab_protocol.signing import encode_key, public_key_of

ONNX = RuntimeFact(name=RuntimeName.ONNXRUNTIME, version="1.23.0", package="onnxruntime")
TFLITE = RuntimeFact(name=RuntimeName.LITERT, version="2.14.0", package="tflite-runtime")


def refuse(_host: str, _port: int) -> None:
    raise ConnectionRefusedError("Connection refused")


def accept(_host: str, _port: int) -> None:
    return


def device(root: Path) -> Device:
    """A 64-bit device that has everything."""
    unit = "etc/systemd/system/trimtab-agent.service"
    boards.write_tree(root, {unit: "[Unit]\n", "proc/self/clear_refs": ""})
    return Device(
        root=root,
        is_32_bit=False,
        runtimes=lambda: (ONNX,),
        numpy_version=lambda: "2.1.0",
        energy=lambda _meter: "ina3221",
        connect=accept,
    )


def write_config(folder: Path) -> Path:
    folder.mkdir()
    credentials = DeviceCredentials(
        device="pi-1", site="lab", mqtt_host="plane", mqtt_port=1883, username="u", password="p"
    )
    secret = folder / "credentials.json"
    secret.write_text(credentials.model_dump_json())
    secret.chmod(0o600)
    path = folder / "agent.toml"
    path.write_text(
        'state_dir = "state"\ncredentials = "credentials.json"\n'
        f'trusted_keys = ["{encode_key(public_key_of(OWNER_KEY))}"]\n[measure]\nlock = "lock"\n'
    )
    return path


def named(findings: tuple[Finding, ...], name: str) -> Finding:
    (found,) = [one for one in findings if one.name == name]
    return found


@pytest.fixture
def pi(tmp_path: Path) -> Device:
    return device(boards.pi4(tmp_path / "root"))


def test_a_device_that_has_everything_is_healthy(tmp_path: Path, pi: Device) -> None:
    findings = examine(pi, write_config(tmp_path / "config"))
    assert {one.level for one in findings} == {Level.OK}
    assert is_healthy(findings)
    assert not any(one.why or one.fix for one in findings)


def test_advice_alone_is_healthy(pi: Device) -> None:
    findings = examine(replace(pi, energy=lambda _meter: NoSensor("none")))
    assert Level.ADVICE in {one.level for one in findings}
    assert is_healthy(findings)


@pytest.mark.parametrize(
    "board",
    [
        boards.pi5,
        boards.pi4,
        boards.orin_nano,
        boards.agx_orin,
        boards.nano_jetpack4,
        boards.laptop,
        boards.nothing,
    ],
)
def test_whatever_is_not_well_comes_with_its_reason_and_its_remedy(
    tmp_path: Path, board: Callable[[Path], Path]
) -> None:
    bare = Device(
        root=board(tmp_path),
        runtimes=lambda: (),
        energy=lambda _meter: NoSensor("no energy sensor"),
        ask=lambda _: "VCHI initialization failed",
    )
    findings = examine(bare)
    assert not is_healthy(findings)
    for one in findings:
        assert one.level is Level.OK or (one.found and one.why and one.fix)


def test_a_32_bit_system_is_told_of_the_runtime_that_it_can_have(pi: Device) -> None:
    findings = examine(replace(pi, is_32_bit=True, runtimes=lambda: ()))
    found = named(findings, "runtime")
    assert found.level is Level.MISSING
    assert found.fix.endswith("install tflite-runtime 'numpy<2'")
    found = named(examine(replace(pi, runtimes=lambda: ())), "runtime")
    assert found.fix.endswith("install onnxruntime ai-edge-litert")


def test_tflite_runtime_with_numpy_2_is_missing_numpy_1(pi: Device) -> None:
    old = replace(pi, runtimes=lambda: (TFLITE,))
    assert "numpy<2" in named(examine(old), "numpy").fix
    assert is_healthy(examine(replace(old, numpy_version=lambda: "1.26.4")))


def test_a_broker_that_refuses_is_named_with_its_address(tmp_path: Path, pi: Device) -> None:
    config = write_config(tmp_path / "config")
    found = named(examine(replace(pi, connect=refuse), config), "broker")
    assert found.level is Level.MISSING
    assert "plane:1883" in found.found


def test_settings_that_are_wrong_are_missing_with_their_own_words(
    tmp_path: Path, pi: Device
) -> None:
    config = write_config(tmp_path / "config")
    (config.parent / "credentials.json").unlink()
    found = named(examine(pi, config), "configuration")
    assert found.level is Level.MISSING
    assert "trimtab-deploy device add" in found.found


def test_a_password_that_others_can_read_is_advised_against(tmp_path: Path, pi: Device) -> None:
    config = write_config(tmp_path / "config")
    (config.parent / "credentials.json").chmod(0o644)
    found = named(examine(pi, config), "credentials")
    assert (found.level, found.fix[:14]) == (Level.ADVICE, "sudo chmod 600")


def test_a_measurement_that_is_running_is_no_fault(tmp_path: Path, pi: Device) -> None:
    config = write_config(tmp_path / "config")
    with (config.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = named(examine(pi, config), "measuring lock")
    assert found.level is Level.OK
    assert "taken" in found.found


def test_a_lock_that_cannot_be_opened_is_missing(tmp_path: Path, pi: Device) -> None:
    config = write_config(tmp_path / "config")
    (config.parent / "lock").mkdir()
    assert named(examine(pi, config), "measuring lock").level is Level.MISSING


def test_a_lock_in_a_folder_that_is_not_there_is_missing(tmp_path: Path, pi: Device) -> None:
    config = write_config(tmp_path / "config")
    config.write_text(config.read_text().replace('"lock"', '"none/lock"'))
    assert named(examine(pi, config), "measuring lock").level is Level.MISSING


def test_counters_for_root_only_come_with_the_command_that_opens_them(tmp_path: Path) -> None:
    laptop = replace(device(boards.laptop(tmp_path)), energy=lambda _meter: NoSensor("root only"))
    found = named(examine(laptop), "energy sensor")
    assert found.level is Level.ADVICE
    assert "chmod a+r /sys/class/powercap" in found.fix


@pytest.mark.parametrize(
    ("lines", "fix"), [('file = "power.csv"', "start what writes it"), ('topic = "t"', "systemctl")]
)
def test_a_configured_meter_that_is_not_there_is_named_with_its_remedy(
    tmp_path: Path, pi: Device, lines: str, fix: str
) -> None:
    config = write_config(tmp_path / "config")
    config.write_text(config.read_text() + f"[meter]\n{lines}\n")
    found = named(examine(replace(pi, energy=Device().energy), config), "energy sensor")
    assert (found.level, fix in found.fix) == (Level.ADVICE, True)
    assert ".csv cannot be read: No such file" in found.found


def test_a_configured_meter_that_is_there_is_the_sensor(tmp_path: Path, pi: Device) -> None:
    config = write_config(tmp_path / "config")
    config.write_text(config.read_text() + '[meter]\nfile = "power.csv"\n')
    (config.parent / "power.csv").write_text("1,2\n")
    found = named(examine(replace(pi, energy=Device().energy), config), "energy sensor")
    assert (found.level, found.found) == (Level.OK, "external:power.csv")


def test_a_meter_that_has_said_nothing_yet_is_advice(tmp_path: Path, pi: Device) -> None:
    config = write_config(tmp_path / "config")
    config.write_text(config.read_text() + '[meter]\ntopic = "t"\nfile = "power.csv"\n')
    (config.parent / "power.csv").touch()
    found = named(examine(replace(pi, energy=Device().energy), config), "energy sensor")
    assert (found.level, found.found) == (
        Level.ADVICE,
        "external:power.csv: nothing has arrived yet",
    )
    (config.parent / "power.csv.1").write_text("1,2\n")  # a new file was begun just now
    found = named(examine(replace(pi, energy=Device().energy), config), "energy sensor")
    assert found.level is Level.OK


@pytest.mark.parametrize("name", ["vcio", "vcio_gencmd"])
def test_a_mailbox_without_the_right_to_it_comes_with_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / name).touch()
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    bare = replace(device(tmp_path), energy=lambda _meter: NoSensor("none"))
    assert "usermod -aG video" in named(examine(bare), "energy sensor").fix


def test_the_command_asks_the_firmware_of_a_pi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text("#!/bin/sh\necho throttled=0x10000\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    cli.main(["doctor"])
    assert "since the last start there has been: under-voltage" in capsys.readouterr().out


def test_a_board_without_any_sensor_is_told_what_to_buy(pi: Device) -> None:
    found = named(examine(replace(pi, energy=lambda _meter: NoSensor("none"))), "energy sensor")
    assert "INA219" in found.fix


def test_under_voltage_of_the_past_and_of_now_are_told_apart(pi: Device) -> None:
    past = examine(replace(pi, ask=lambda _: "throttled=0x10000"))
    assert named(past, "power and heat").level is Level.ADVICE
    assert named(past, "state now").level is Level.OK
    now = examine(replace(pi, ask=lambda _: "throttled=0x1"))
    assert "power supply" in named(now, "state now").fix


def test_a_firmware_that_may_not_be_asked_is_told_of_the_group(pi: Device) -> None:
    def ask(_command: str) -> str:
        raise PermissionError("/dev/vcio")

    assert "usermod -aG video" in named(examine(replace(pi, ask=ask)), "power and heat").fix


def test_a_governor_that_changes_clocks_comes_with_its_command(tmp_path: Path) -> None:
    found = named(examine(device(boards.pi5(tmp_path))), "state now")
    assert found.fix.startswith("echo performance | sudo tee /sys/devices/")


def test_other_work_is_told_apart_from_what_to_do_about_it(pi: Device) -> None:
    (pi.root / "proc/loadavg").write_text("3.90 2.0 1.0 4/210 77\n")
    found = named(examine(pi), "state now")
    assert "load 3.90 on 4 CPUs" in found.found
    assert found.fix.startswith("stop them")


def test_a_kernel_that_cannot_reset_the_peak_is_advice(pi: Device) -> None:
    boards.make_unreadable(pi.root / "proc/self/clear_refs")
    assert named(examine(pi), "peak memory").level is Level.ADVICE


def test_a_full_disk_is_missing_room(pi: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_DISK_BYTES", 2**62)
    assert named(examine(pi), "disk").level is Level.MISSING


def test_a_service_that_is_not_installed_is_advice(pi: Device) -> None:
    (pi.root / "etc/systemd/system/trimtab-agent.service").unlink()
    assert "systemctl enable" in named(examine(pi), "service").fix


def test_a_person_reads_first_what_is_missing() -> None:
    text = render(
        (
            Finding(Level.OK, "a", "fine"),
            Finding(Level.ADVICE, "b", "so so", "why b", "do b"),
            Finding(Level.MISSING, "c", "gone", "why c", "do c"),
        )
    )
    assert text.splitlines() == [
        "missing  c: gone",
        "         why: why c",
        "         fix: do c",
        "advice   b: so so",
        "         why: why b",
        "         fix: do b",
        "ok       a: fine",
    ]


def test_a_program_reads_the_same_as_json(pi: Device) -> None:
    findings = examine(replace(pi, runtimes=lambda: ()))
    rows = json.loads(render_json(findings))
    assert rows["is_healthy"] is False
    assert [row["level"] for row in rows["findings"]] == [one.level.value for one in findings]


def test_the_command_ends_with_1_exactly_when_something_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--json", "--config", str(tmp_path / "none.toml")]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["findings"][0]["level"] == "missing"
    code = cli.main(["doctor", "--json"])
    assert code == (0 if json.loads(capsys.readouterr().out)["is_healthy"] else 1)
