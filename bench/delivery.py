"""`make bench-delivery`: how fast 20 MB arrive at a real agent, side by side in one run.

The device is a real `trimtab-agent run` process, the control plane the real one's delivery spoken
by a small server over the same real mosquitto. Time runs from the desired state to the report that
every chunk is on disk and the whole is being verified, so it contains the agent's own checking and
writing. Rows differ in one thing at a time; ratios are to the first row. With nginx and curl
installed, the same file over HTTP is the yardstick.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.agent_process import AgentProcess
from support.brokers import BrokerProcess, find_mosquitto, free_port
from support.control_plane_stub import ControlPlaneStub
from support.tiny_models import make_real_artifact
from trimtab_protocol.lifecycle import DeploymentState

PAYLOAD_BYTES = 20_000_000
ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """One way to deliver."""

    label: str
    window_chunks: int
    is_nodelay: bool
    chunk_qos: int


ROWS = (
    Row("window 8, TCP_NODELAY, chunks at QoS 0 (the default)", 8, is_nodelay=True, chunk_qos=0),
    Row("window 8, TCP_NODELAY, chunks at QoS 1", 8, is_nodelay=True, chunk_qos=1),
    Row("window 8, no TCP_NODELAY, chunks at QoS 1", 8, is_nodelay=False, chunk_qos=1),
    Row("window 1, no TCP_NODELAY, chunks at QoS 0", 1, is_nodelay=False, chunk_qos=0),
    Row("window 1, no TCP_NODELAY, chunks at QoS 1", 1, is_nodelay=False, chunk_qos=1),
)

AGENT_TOML = """
[mqtt]
is_nodelay = {nodelay}
chunk_qos = {qos}
[fetch]
window_chunks = {window}
max_window_chunks = {window}
"""


def deliver_s(row: Row, folder: Path) -> float:
    """Seconds from the desired state to the last chunk."""
    broker = BrokerProcess("mosquitto", folder / "broker", nodelay=row.is_nodelay)
    broker.start()
    plane = ControlPlaneStub(broker.port, chunk_qos=row.chunk_qos)
    toml = AGENT_TOML.format(
        nodelay=str(row.is_nodelay).lower(), qos=row.chunk_qos, window=row.window_chunks
    )
    agent = AgentProcess(folder / "agent", broker.port, toml)
    try:
        agent.start()
        plane.wait_for("birth", lambda: bool(plane.births))
        artifact = make_real_artifact(1, padding_bytes=PAYLOAD_BYTES)
        began = time.monotonic()
        plane.desire(*artifact)
        plane.wait_for_state(DeploymentState.VERIFYING, timeout_s=300)
        return time.monotonic() - began
    finally:
        agent.stop()
        plane.close()
        broker.stop()


def curl_s(folder: Path) -> float | None:
    """Seconds for the same bytes from nginx by curl; None where they are not installed."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    curl = shutil.which("curl")
    if nginx is None or curl is None:
        return None
    port = free_port()
    (folder / "file").write_bytes(make_real_artifact(1, padding_bytes=PAYLOAD_BYTES)[1])
    folder.chmod(0o755)
    conf = folder / "nginx.conf"
    conf.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error; events {{}}\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    server = subprocess.Popen(
        [nginx, "-c", str(conf), "-p", str(folder)], stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(0.5)
        began = time.monotonic()
        done = subprocess.run(
            [curl, "-sf", "-o", str(folder / "copy"), f"http://127.0.0.1:{port}/file"], check=False
        )
        elapsed_s = time.monotonic() - began
    finally:
        server.terminate()
        server.wait()
    return elapsed_s if done.returncode == 0 else None


def main() -> int:
    """Measure and print."""
    if find_mosquitto() is None:
        print("error: this benchmark needs mosquitto (apt install mosquitto)", file=sys.stderr)
        return 2
    print(f"{PAYLOAD_BYTES / 1e6:.0f} MB in chunks of 64 KiB over mosquitto, median of {ROUNDS}\n")
    medians: list[float] = []
    for row in ROWS:
        times = []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
                times.append(deliver_s(row, Path(name)))
        medians.append(statistics.median(times))
        rate = PAYLOAD_BYTES / 1e6 / medians[-1]
        spread = f"{min(times):.2f} to {max(times):.2f} s"
        print(
            f"{rate:8.1f} MB/s  {medians[0] / medians[-1]:6.3f} of the default  ({spread})  {row.label}"
        )
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        http_s = curl_s(Path(name))
    if http_s is None:
        print("\ncurl from nginx: not installed here, not measured")
    else:
        print(
            f"\n{PAYLOAD_BYTES / 1e6 / http_s:8.1f} MB/s  curl from nginx; "
            f"the default reaches {http_s / medians[0]:.2f} of it"
        )
    print(
        "\ndefault / window 1 without TCP_NODELAY:\n"
        f"{medians[4] / medians[0]:8.1f} x  its chunks at QoS 1, as a plain client would\n"
        f"{medians[4] / medians[1]:8.1f} x  chunks at QoS 1 on both sides\n"
        f"{medians[3] / medians[0]:8.1f} x  chunks at QoS 0 on both sides: no acknowledgement, no trap"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
