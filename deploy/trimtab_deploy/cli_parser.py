"""The command line: what can be said. Each command names the function that does it."""

from __future__ import annotations

import argparse
from pathlib import Path


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="trimtab-deploy", description="The control plane: artifacts, devices, rollouts."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_device(commands)
    _add_artifact(commands)
    _add_trial(commands)
    _add_rollout(commands)
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", help="run the control plane")
    serve.set_defaults(run="serve:run")
    serve.add_argument("--data", type=Path, required=True, help="data folder; made if missing")
    serve.add_argument("--config", type=Path, help="TOML file")
    serve.add_argument("--site", help="first name in all topics (default: default)")
    serve.add_argument("--http-host", help="default: 127.0.0.1")
    serve.add_argument("--http-port", type=int, help="default: 8080; 0: a free one")
    serve.add_argument("--mqtt-host", help="default: 127.0.0.1")
    serve.add_argument("--mqtt-port", type=int, help="default: 1883; 0: a free one")
    serve.add_argument(
        "--broker",
        choices=("auto", "mosquitto", "amqtt", "external"),
        help="default: auto, which is mosquitto if it is installed, else amqtt",
    )
    serve.add_argument("--verbose", action="store_true", help="log more")


def _add_device(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verbs = _group(commands, "device", "devices of the fleet")
    add = _client(verbs, "add", "device:add", "make a device known and get its credentials")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    add.add_argument("--out", type=Path, help="write the credentials here (mode 0600)")
    _json(_client(verbs, "list", "device:show_all", "all devices"))
    show = _client(verbs, "show", "device:show", "one device")
    show.add_argument("name", metavar="NAME")
    _json(show)


def _add_artifact(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verbs = _group(commands, "artifact", "signed models")
    push = _client(verbs, "push", "artifact:push", "upload a manifest and its model file")
    push.add_argument(
        "manifest", type=Path, metavar="X.manifest.json", help="with X.onnx or X.tflite beside it"
    )
    _json(_client(verbs, "list", "artifact:show_all", "all artifacts"))
    show = _client(verbs, "show", "artifact:show", "one artifact")
    show.add_argument("artifact", metavar="NAME@VERSION")
    _json(show)


def _add_trial(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verbs = _group(commands, "trial", "measurements that change nothing")
    create = _client(verbs, "create", "trial:create", "measure an artifact on a device")
    create.add_argument("artifact", metavar="NAME@VERSION")
    create.add_argument("--class", dest="device_class", required=True, metavar="CLASS")
    create.add_argument("--device", help="this one; default: any that is online")
    create.add_argument("--expires-s", type=float, default=600.0, help="default: 600")
    create.add_argument("--wait", action="store_true", help="until it has ended")
    _measure(create, prefix="")
    _json(create)
    show = _client(verbs, "show", "trial:show", "one trial")
    show.add_argument("trial_id", metavar="TRIAL")
    _json(show)


def _add_rollout(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verbs = _group(commands, "rollout", "one artifact to many devices, in stages")
    create = _client(verbs, "create", "rollout:create", "begin a rollout")
    create.add_argument("artifact", metavar="NAME@VERSION")
    create.add_argument(
        "--class", dest="device_classes", action="append", default=[], metavar="CLASS"
    )
    create.add_argument("--device", dest="devices", action="append", default=[], metavar="NAME")
    create.add_argument(
        "--stage",
        dest="stages",
        action="append",
        default=[],
        metavar="count=N|ratio=X",
        help="in order, cumulative; default: count=1, then ratio=1.0",
    )
    create.add_argument(
        "--max-p90-ratio",
        type=float,
        help="candidate / incumbent, at most; default: 1.05; 0: no limit",
    )
    create.add_argument("--max-failed-ratio", type=float, default=0.0, help="default: 0")
    create.add_argument("--deadline-s", type=float, default=3600.0, help="of a stage; 3600")
    create.add_argument("--probation-s", type=float, default=60.0, help="default: 60")
    create.add_argument(
        "--heartbeat-timeout-s",
        type=float,
        help="a device goes back if an application falls silent in probation for so long",
    )
    create.add_argument(
        "--max-app-p90-ratio",
        type=float,
        help="a device goes back if an application's own p90 grows by more than this",
    )
    create.add_argument("--on-failure", choices=("roll_back", "stop"), default="roll_back")
    create.add_argument("--max-fetch-bytes-per-s", type=int, help="rate cap per device")
    create.add_argument("--wait", action="store_true", help="until it has ended; 3 if it failed")
    _measure(create, prefix="probe-")
    _json(create)
    _json(_client(verbs, "list", "rollout:show_all", "all rollouts"))
    for verb, told in (
        ("show", "one rollout"),
        ("watch", "one rollout, live, until it has ended"),
        ("abort", "end it; devices that have not committed go back"),
    ):
        command = _client(verbs, verb, f"rollout:{verb}", told)
        command.add_argument("rollout_id", metavar="ROLLOUT")
        _json(command)


def _group(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, told: str
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    return commands.add_parser(name, help=told).add_subparsers(metavar="VERB", required=True)


def _client(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: str, told: str
) -> argparse.ArgumentParser:
    command = verbs.add_parser(name, help=told, description=told)
    command.set_defaults(run=run)
    where = command.add_argument_group("which control plane")
    where.add_argument("--data", type=Path, help="data folder of one on this machine")
    where.add_argument("--url", help="or env TRIMTAB_URL")
    where.add_argument("--token", help="or env TRIMTAB_TOKEN")
    return command


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="the document instead of a table")


def _measure(command: argparse.ArgumentParser, *, prefix: str) -> None:
    group = command.add_argument_group("how much to measure")
    group.add_argument(f"--{prefix}processes", dest="processes", type=int, help="default: 5")
    group.add_argument(f"--{prefix}min-runs", dest="min_runs", type=int, help="default: 200")
    group.add_argument(
        f"--{prefix}min-steady-s", dest="min_steady_s", type=float, help="default: 5"
    )
    group.add_argument(f"--{prefix}warm-up-s", dest="warm_up_s", type=float, help="default: 1")
    group.add_argument(
        f"--{prefix}max-process-s", dest="max_process_s", type=float, help="default: 120"
    )
    group.add_argument(f"--{prefix}threads", dest="threads", type=int, help="default: the agent's")
    group.add_argument(
        f"--{prefix}paced-period-ms",
        dest="paced_period_ms",
        type=float,
        help="also one inference per period",
    )
    group.add_argument(
        f"--{prefix}energy-windows",
        dest="energy_windows",
        type=int,
        help="where the device has a sensor; default: 5 of 10 s, 0 for none",
    )
