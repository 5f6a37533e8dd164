"""`make soak`: kill -9 at random, thousands of times, and one whole model every time.

Real `trimtab-agent run` processes take one update after the other over a real mosquitto. Half of the
kills come at a random instant of an agent's life, half in a state that was drawn and waited for.
What is asked of the device after each is in `tests/support/soak.py`.

    N=2000 SEED=1 LANES=3 make soak      kills in all, seed, agents side by side

The first violation ends it with code 1, the seed and the folder as it was found. A seed gives the
same draws again; which instruction a kill meets also depends on the machine.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from support.brokers import find_mosquitto
from support.soak import NOTHING_DESIRED, Lane, Tally
from trimtab_protocol.lifecycle import DeploymentState

PROGRESS_EVERY_S = 20.0


def soak(folder: Path, seed: int, lanes: int, tally: Tally) -> None:
    """Run the lanes side by side until there were enough kills, or a violation."""

    def live(number: int) -> None:
        try:
            Lane(folder / f"lane-{number}", f"{seed}.{number}", tally).run()
        except Exception as error:  # noqa: BLE001 - the top of a thread: a soak that broke is not one that passed
            tally.violate(f"the soak itself failed: {error!r}")

    threads = [threading.Thread(target=live, args=(number,)) for number in range(lanes)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(PROGRESS_EVERY_S)
        rate = tally.kills / (time.monotonic() - began)
        print(f"  {tally.kills} kills, {rate:.1f} a second", file=sys.stderr)
        for thread in threads if tally.is_over else ():
            thread.join()


def main() -> int:
    """Soak and print."""
    if find_mosquitto() is None:
        print("error: the soak needs mosquitto (apt install mosquitto)", file=sys.stderr)
        return 2
    wanted, lanes = int(os.environ.get("N", "2000")), int(os.environ.get("LANES", "3"))
    seed = int(os.environ.get("SEED", str(random.SystemRandom().randrange(2**32))))
    print(f"soak: {wanted} kills, seed {seed}, {lanes} agents side by side", flush=True)
    tally, began = Tally(wanted), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="trimtab-soak-"))
    soak(folder, seed, lanes, tally)
    elapsed_s = time.monotonic() - began
    print(f"{tally.kills} kills in {elapsed_s:.0f} s ({tally.kills / elapsed_s:.1f} a second)")
    for state in (*(state.value for state in DeploymentState), NOTHING_DESIRED):
        if tally.killed_in[state]:
            print(f"{tally.killed_in[state]:8d}  killed while {state}")
    print(f"{tally.before_broker:8d}  of them before the agent had reached the broker")
    print(f"{tally.loads:8d}  times the active model was loaded and computed right")
    for state, count in sorted(tally.ended.items()):
        print(f"{count:8d}  updates ended as {state}")
    if tally.violation is not None:
        print(f"VIOLATION with seed {seed}: {tally.violation}\nas it was found: {folder}")
        return 1
    shutil.rmtree(folder)
    print("no violation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
