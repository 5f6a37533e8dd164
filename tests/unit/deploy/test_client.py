from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from support.artifacts import make_artifact
from trimtab_deploy import client as client_module
from trimtab_deploy.cli import main
from trimtab_deploy.cli_parser import make_parser
from trimtab_deploy.client import Client
from trimtab_deploy.commands.connection import find_server, read_artifact_name
from trimtab_deploy.commands.rollout import read_spec, read_stage
from trimtab_protocol.api import DeviceSpec, Problem
from trimtab_protocol.errors import ConfigError, ErrorCode, ProtocolError, TransientError
from trimtab_protocol.rollout import OnFailure, StageSpec

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RETRY_DELAYS_S", (0.0, 0.0, 0.0))
    monkeypatch.delenv("TRIMTAB_URL", raising=False)
    monkeypatch.delenv("TRIMTAB_TOKEN", raising=False)


def make_client(answer: Answer, said: list[str]) -> Client:
    return Client("http://x/", "t", say=said.append, transport=httpx.MockTransport(answer))


def test_a_problem_becomes_the_error_of_its_code() -> None:
    problem = Problem(title="c", status=409, detail="there", code=ErrorCode.PROTOCOL_CONFLICT)
    client = make_client(lambda _: httpx.Response(409, content=problem.model_dump_json()), [])
    with pytest.raises(ProtocolError, match="there") as caught:
        client.devices()
    assert caught.value.code is ErrorCode.PROTOCOL_CONFLICT


def test_who_cannot_be_reached_is_tried_again_and_that_is_said() -> None:
    calls, said = 0, []  # type: ignore[var-annotated]

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content="[]")

    assert make_client(answer, said).devices() == []
    assert (calls, len(said)) == (3, 2)


def test_after_a_few_times_it_gives_up() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(TransientError) as caught:
        make_client(answer, []).devices()
    assert caught.value.code is ErrorCode.TRANSIENT_CONTROL_PLANE


def test_what_may_have_been_done_is_not_done_again() -> None:
    calls = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        raise httpx.ReadError("cut")

    with pytest.raises(TransientError):
        make_client(answer, []).add_device(DeviceSpec(device="a"))
    assert calls == 1


@pytest.mark.parametrize("status", [200, 500])
def test_something_else_on_that_port_is_said(status: int) -> None:
    client = make_client(lambda _: httpx.Response(status, content="<html>"), [])
    with pytest.raises(TransientError, match="control plane"):
        client.devices()


def chosen(*arguments: str) -> argparse.Namespace:
    return make_parser().parse_args(arguments)


def test_the_server_is_found_by_options_folder_or_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as caught:
        find_server(chosen("device", "list"))
    assert caught.value.code is ErrorCode.CONFIG_MISSING
    monkeypatch.setenv("TRIMTAB_URL", "http://env")
    monkeypatch.setenv("TRIMTAB_TOKEN", "env-token")
    assert find_server(chosen("device", "list")) == ("http://env", "env-token")
    options = chosen("device", "list", "--url", "http://opt", "--token", "o")
    assert find_server(options) == ("http://opt", "o")
    (tmp_path / "admin.token").write_text("file-token\n")
    (tmp_path / "server.json").write_text(
        '{"http_url":"http://file","mqtt_host":"h","mqtt_port":1,"broker":"b","pid":1}'
    )
    folder = chosen("device", "list", "--data", str(tmp_path))
    assert find_server(folder) == ("http://file", "file-token")


@pytest.mark.parametrize("text", ["m", "m@", "@1", "m@x", "m@-1", ""])
def test_an_artifact_name_without_a_version_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        read_artifact_name(text)


def test_stages_are_read_in_order() -> None:
    assert read_stage("count=2") == StageSpec(count=2)
    assert read_stage("ratio=0.5") == StageSpec(ratio=0.5)
    for wrong in ("5", "count=x", "ratio=", "count=0", "ratio=2", "all=1"):
        with pytest.raises(ConfigError):
            read_stage(wrong)


def test_a_rollout_is_what_its_options_say() -> None:
    spec = read_spec(
        chosen(
            *("rollout", "create", "m@3", "--class", "pi", "--class", "orin"),
            *("--stage", "count=1", "--stage", "ratio=1.0", "--max-p90-ratio", "1.2"),
            *("--heartbeat-timeout-s", "30", "--max-app-p90-ratio", "1.2"),
            *("--probation-s", "5", "--probe-processes", "2", "--probe-min-runs", "20"),
            *("--probe-min-steady-s", "0.5", "--probe-warm-up-s", "0.1", "--on-failure", "stop"),
            *("--probe-paced-period-ms", "20", "--probe-energy-windows", "0"),
        )
    )
    assert (spec.name, spec.version, spec.device_classes) == ("m", 3, ("pi", "orin"))
    assert spec.stages == (StageSpec(count=1), StageSpec(ratio=1.0))
    assert spec.gate.max_p90_ratio == 1.2
    assert spec.policy.probation_s == 5
    assert (spec.policy.heartbeat_timeout_s, spec.policy.max_app_p90_ratio) == (30, 1.2)
    assert (spec.policy.probe.processes, spec.policy.probe.min_runs) == (2, 20)
    assert (spec.policy.probe.min_steady_s, spec.policy.probe.warm_up_s) == (0.5, 0.1)
    assert (spec.policy.probe.paced_period_ms, spec.policy.probe.energy_windows) == (20, 0)
    assert spec.on_failure is OnFailure.STOP


def test_defaults_are_those_of_the_contract_and_zero_lifts_the_limit() -> None:
    assert read_spec(chosen("rollout", "create", "m@1")).gate.max_p90_ratio == 1.05
    free = read_spec(chosen("rollout", "create", "m@1", "--max-p90-ratio", "0"))
    assert free.gate.max_p90_ratio is None
    with pytest.raises(ConfigError, match="min_runs"):
        read_spec(chosen("rollout", "create", "m@1", "--probe-min-runs", "1"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("device", "list"), "config.missing"),
        (("artifact", "show", "m", "--url", "http://x", "--token", "t"), "config.invalid"),
        (("device", "add", "NOT", "--url", "http://x", "--token", "t"), "config.invalid"),
        (("device", "add", "a", "--label", "x", "--url", "http://x", "--token", "t"), "config"),
        (
            ("device", "add", "a", "--out", "/nonexistent/c", "--url", "http://x", "--token", "t"),
            "config.invalid",
        ),
        (("artifact", "push", "/nonexistent.manifest.json"), "config.missing"),
        (("device", "list", "--url", "http://127.0.0.1:1", "--token", "t"), "transient.control"),
        (("serve", "--data", "/dev/null/x"), "storage.write"),
        (("serve", "--data", "/tmp", "--config", "/nonexistent"), "config.missing"),
    ],
)
def test_an_error_is_one_line_with_its_code_and_exit_2(
    arguments: tuple[str, ...], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"error: [{code}")


def test_a_model_file_that_is_not_there_or_another_is_refused_before_any_upload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed, payload = make_artifact("m", 1, b"the payload")
    manifest = tmp_path / "m.manifest.json"
    manifest.write_text(signed.model_dump_json())
    assert main(["artifact", "push", str(manifest)]) == 2
    assert "config.missing" in capsys.readouterr().err
    (tmp_path / "m.onnx").write_bytes(payload + b"x")
    assert main(["artifact", "push", str(manifest)]) == 2
    assert "trust.payload_digest" in capsys.readouterr().err
    odd = manifest.rename(tmp_path / "m.json")
    assert main(["artifact", "push", str(odd)]) == 2
    assert "manifest.json" in capsys.readouterr().err


def test_interrupted_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("trimtab_deploy.cli._run", interrupt)
    assert main(["device", "list"]) == 130


@pytest.mark.parametrize(
    "command", ["", "serve", "device add", "artifact push", "trial create", "rollout create"]
)
def test_help_is_there_without_heavy_imports(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    assert caught.value.code == 0
    assert "usage: trimtab-deploy" in capsys.readouterr().out
