"""`trimtab-deploy serve`."""

from __future__ import annotations

import argparse
import logging
import os

from trimtab_deploy.bootstrap import serve
from trimtab_deploy.config import load_settings

OVERRIDES = ("site", "http_host", "http_port", "mqtt_host", "mqtt_port", "broker")


def run(chosen: argparse.Namespace) -> int:
    """Run the control plane until a signal comes."""
    logging.basicConfig(
        level=logging.DEBUG if chosen.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("asyncio", "httpx", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.umask(0o077)  # verifiers and tokens are nobody else's business
    settings = load_settings(chosen.config, {key: getattr(chosen, key) for key in OVERRIDES})
    return serve(chosen.data, settings)
