"""Find the control plane that a command is for, and read what the user typed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from trimtab_deploy.client import Client
from trimtab_deploy.folder import admin_token, await_server_file
from trimtab_protocol.base import describe_validation_error
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.measurement import MeasureSpec

ModelT = TypeVar("ModelT", bound=BaseModel)
MEASURE_FIELDS = (
    "processes",
    "min_runs",
    "min_steady_s",
    "warm_up_s",
    "max_process_s",
    "threads",
    "paced_period_ms",
    "energy_windows",
)


@contextmanager
def connected(chosen: argparse.Namespace) -> Iterator[Client]:
    """A client for the control plane that was named.

    Raises:
        ConfigError: None was named, or none serves the folder that was named.
    """
    url, token = find_server(chosen)
    client = Client(url, token, say=_say)
    try:
        yield client
    finally:
        client.close()


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def find_server(chosen: argparse.Namespace) -> tuple[str, str]:
    """URL and token: options, then the data folder, then the environment.

    Raises:
        ConfigError: `config.missing`: one of them cannot be found.
    """
    url, token = chosen.url, chosen.token
    if chosen.data is not None:
        url = url or await_server_file(chosen.data, _say).http_url
        token = token or admin_token(chosen.data)
    url = url or os.environ.get("TRIMTAB_URL")
    token = token or os.environ.get("TRIMTAB_TOKEN")
    if url and not str(url).startswith(("http://", "https://")):
        raise ConfigError(f"--url {url!r} must begin with http:// or https://")
    if not url or not token:
        raise ConfigError(
            "say which control plane: --data DIR, or --url and --token, or TRIMTAB_URL and "
            "TRIMTAB_TOKEN in the environment",
            code=ErrorCode.CONFIG_MISSING,
        )
    return str(url), str(token)


def read_options(build: Callable[[], ModelT]) -> ModelT:
    """Build a model from options, with errors for people.

    Raises:
        ConfigError: An option has a value that is not allowed.
    """
    try:
        return build()
    except ValidationError as error:
        raise ConfigError(describe_validation_error(error)) from error


def read_artifact_name(text: str) -> tuple[str, int]:
    """Take `name@version` apart.

    Raises:
        ConfigError: It is not of that form.
    """
    name, _, version = text.partition("@")
    if not name or not version.isdecimal():
        raise ConfigError(f"an artifact is NAME@VERSION, such as kws@3, not {text!r}")
    return name, int(version)


def read_measure_spec(chosen: argparse.Namespace) -> MeasureSpec:
    """The measure options; those not given keep their defaults."""
    given = {name: getattr(chosen, name) for name in MEASURE_FIELDS}
    return MeasureSpec(**{name: value for name, value in given.items() if value is not None})
