"""What keeps the resident small must not change what its libraries can do. Each in a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest

LATE = "from trimtab_agent.lean import import_at_first_use, stay_small\nimport sys\n"


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LATE + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("again", ["import urllib.request", "from urllib import request"])
def test_importing_loads_nothing_and_looking_into_it_loads_the_real_one(again: str) -> None:
    code = f"""
import_at_first_use("urllib.request")
{again}
import urllib
print("http.client" in sys.modules)
opener = urllib.request.build_opener()
print(type(opener).__module__, "http.client" in sys.modules)
import urllib.request
print(urllib.request.__file__.endswith("request.py"), hasattr(urllib.request, "no_such_name"))
"""
    assert _run(code).splitlines() == ["False", "urllib.request True", "True False"]


def test_a_name_from_it_is_the_real_one() -> None:
    code = """
import_at_first_use("importlib.metadata")
import importlib.metadata as held
from importlib.metadata import version
print(version("pydantic") == held.version("pydantic"), "zipfile" in sys.modules)
"""
    assert _run(code) == "True True"


def test_a_function_that_is_taken_by_name_comes_when_it_is_called() -> None:
    code = """
import_at_first_use("importlib.metadata", ("version", "entry_points"))
from importlib.metadata import entry_points, version
print("zipfile" in sys.modules)
import importlib.metadata as held
print("zipfile" in sys.modules)
print(bool(version("pydantic")), len(entry_points(group="console_scripts")) > 0)
import importlib.metadata
print(version("pydantic") == held.version("pydantic") == importlib.metadata.version("pydantic"))
"""
    assert _run(code).splitlines() == ["False", "False", "True True", "True"]


def test_who_holds_the_stand_in_while_another_loads_it_sees_the_same_functions() -> None:
    code = """
import_at_first_use("urllib.request")
import urllib.request as first
first.getproxies
import urllib.request as second
print(first is second, first.getproxies is second.getproxies, first.Request is second.Request)
"""
    assert _run(code) == "False True True"


def test_what_is_imported_already_or_not_there_is_left_alone() -> None:
    code = """
import json.decoder
before = json.decoder
import_at_first_use("json.decoder")
import_at_first_use("json.no_such_module")
print(json.decoder is before is sys.modules["json.decoder"], "json.no_such_module" in sys.modules)
"""
    assert _run(code) == "True False"


def test_a_small_process_builds_no_message_before_it_reads_one_and_then_reads_it_right() -> None:
    code = """
stay_small()
import trimtab_agent.bootstrap
from trimtab_protocol.messages import Ack, Desired, encode, parse_message
trimtab_agent.bootstrap.installed_runtimes()
late = [name for name in ("zipfile", "http.client", "_ssl", "nacl", "ctypes") if name in sys.modules]
print(late, Ack.__pydantic_complete__, Desired.__pydantic_complete__)
ack = parse_message(Ack, encode(Ack(report_ids=("a",))))
print(ack.report_ids, Ack.__pydantic_complete__, Desired.__pydantic_complete__)
"""
    assert _run(code).splitlines() == ["[] False False", "('a',) True False"]


def test_the_parts_of_a_message_are_built_before_it_so_that_they_are_shared() -> None:
    code = """
stay_small()
from trimtab_agent.measure.jobs import JobResult
from trimtab_protocol.base import build_now
from trimtab_protocol.measurement import Latency, Measurement
from trimtab_protocol.reading import Reading
build_now(JobResult)
print([part.__pydantic_complete__ for part in (JobResult, Measurement, Latency, Reading)])
"""
    assert _run(code) == "[True, True, True, True]"


def test_a_child_that_reports_finds_its_result_built_before_a_thread_reads_it() -> None:
    """Two threads that build one model at once get wrong answers from it."""
    code = """
import sys, threading, tempfile
stay_small()
from pathlib import Path
from trimtab_agent import children
from trimtab_agent.measure.jobs import Job, JobKind, JobResult, Settings, Subject
from trimtab_protocol.manifest import ArtifactRef, RuntimeName
complete, done = [], threading.Event()
read = children._read_result
def watch(*arguments):
    complete.append((JobResult.__pydantic_complete__, threading.current_thread().name))
    return read(*arguments)
children._read_result = watch
artifact = ArtifactRef(name="x", version=1, sha256="0" * 64)
subject = Subject(artifact=artifact, runtime=RuntimeName.LITERT, model_path="/none", size_bytes=1)
settings = Settings(device_class="x", threads=1)
job = Job(job_id="j", kind=JobKind.CHECK, subject=subject, settings=settings)
with tempfile.TemporaryDirectory() as name:
    runner = children.ProcessRunner(Path(name) / "jobs", lambda event: done.set(), 60.0)
    runner.start(job)
    done.wait(60)
print(complete)
"""
    assert _run(code) == "[(True, 'child')]"


def test_what_the_connections_of_applications_read_and_write_is_built_before_there_are_any() -> (
    None
):
    code = """
stay_small()
from trimtab_agent.local import routes
models = [value for value in vars(routes).values() if hasattr(value, "__pydantic_complete__")]
print(len(models) >= 4, [m.__name__ for m in models if not m.__pydantic_complete__])
"""
    assert _run(code) == "True []"
