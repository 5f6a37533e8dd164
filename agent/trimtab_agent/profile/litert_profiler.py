"""LiteRT's profiler, which its Python package ships but does not offer: through the C interface.

`libLiteRt.so` in ai-edge-litert exports what LiteRT's `litert/c/litert_profiler.h` declares, but
promises nothing about it. So it is used only in versions in which it was seen to work, only in a
process that may crash, and its answer is checked.
"""

from __future__ import annotations

import array
import ctypes
import importlib.metadata
import importlib.util
import random
import statistics
import time
from pathlib import Path
from typing import Any

from trimtab_agent.profile.jobs import KernelMode, ProfileJob
from trimtab_agent.profile.litert_events import ProfilerEvent, order_events
from trimtab_agent.profile.pacing import choose_runs
from trimtab_agent.profile.record import ProfiledRuns
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.tensors import unpack_tensor

PACKAGE = "ai-edge-litert"
KNOWN_VERSIONS = ("2.1.6", "2.2.0", "2.3.0")
"""2.1.0 has other signatures; 1.x and 2.0.x lack the functions."""

CPU_ACCELERATOR = 1  # kLiteRtHwAcceleratorCpu
FLOAT32 = 1  # kLiteRtElementTypeFloat32
WRITE = 1  # kLiteRtTensorBufferLockModeWrite
WARM_UP_RUNS = 5

Handle = ctypes.c_void_p
Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class RankedTensorType(ctypes.Structure):
    """LiteRtRankedTensorType: 72 bytes, of which only the element type is of interest here."""

    _fields_ = (("element_type", ctypes.c_int32), ("layout", ctypes.c_int32 * 17))


class EventData(ctypes.Structure):
    """ProfiledEventData."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("event_type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("begin_memory", ctypes.c_size_t * 3),
        ("end_memory", ctypes.c_size_t * 3),
        ("index", ctypes.c_uint64),
        ("more", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


def profile_litert(job: ProfileJob) -> ProfiledRuns:
    """Profile a model.

    Raises:
        ModelError: No known library, the model does not run, or the events make no sense.
    """
    version = known_version()
    model = CompiledModel(Library(library_path()), job)
    for _ in range(WARM_UP_RUNS):
        model.run()
    events, walls_s = model.profile(1)
    runs = choose_runs(len(events), walls_s[0], job.budget_s)
    events, walls_s = model.profile(runs)
    run_us, operators = order_events(events, runs)
    return ProfiledRuns(
        source=f"{PACKAGE} {version} profiler",
        runtime=job.runtime.value,
        mode=job.mode.value,
        run_us=run_us,
        operators=operators,
        wall_p50_ms=statistics.median(walls_s) * 1e3,
    )


def known_version() -> str:
    """The installed version.

    Raises:
        ModelError: It is missing, or not one of those that are known to work.
    """
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError(
            f"{PACKAGE} is not installed; no other package of LiteRT has a profiler"
        ) from error
    if version not in KNOWN_VERSIONS:
        raise ModelError(
            f"the profiler of {PACKAGE} is used in the versions {', '.join(KNOWN_VERSIONS)};"
            f" {version} is installed"
        )
    return version


def library_path() -> Path:
    """Where the package's shared library lies, without importing the package.

    Raises:
        ModelError: The package is not where Python finds packages, or has no such file.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ModelError(f"{PACKAGE} cannot be found")
    path = Path(spec.origin).parent / "libLiteRt.so"
    if not path.exists():
        raise ModelError(f"{PACKAGE} has no libLiteRt.so")
    return path


def cpu_options(job: ProfileJob) -> str:
    """TOML for LiteRT's CPU. The delegate is its default and is not named: 2.1.6 refuses the name."""
    threads = f"num_threads = {job.threads}\n"
    if job.mode is KernelMode.DELEGATE:
        return threads
    return f'kernel_mode = "{job.mode.value}"\n{threads}'


class Library:
    """The shared library; every function but the destructors returns 0 or an error."""

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise ModelError(f"cannot load {path}: {error}") from error

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            ModelError: It is not there, or did not return 0.
        """
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise ModelError(f"libLiteRt.so has no {name}") from error
        status = function(*arguments)
        if status != 0:
            raise ModelError(f"{name} returned {status}", code=ErrorCode.MODEL_LOAD)

    def make(self, name: str, *arguments: Any) -> Handle:
        """Call a function whose last argument takes the new handle.

        Raises:
            ModelError: As `call`, or the handle is null.
        """
        handle = Handle()
        self.call(name, *arguments, ctypes.byref(handle))
        if not handle.value:
            raise ModelError(f"{name} gave nothing")
        return handle


class CompiledModel:
    """One model with its buffers. Nothing is ever freed: the process ends soon."""

    def __init__(self, library: Library, job: ProfileJob) -> None:
        self._library = library
        self._kept: list[Any] = []
        self._environment = library.make("LiteRtCreateEnvironment", 0, None)
        model = library.make(
            "LiteRtCreateModelFromFile", self._environment, job.model_path.encode()
        )
        options = library.make("LiteRtCreateOptions")
        library.call("LiteRtSetOptionsHardwareAccelerators", options, CPU_ACCELERATOR)
        self._add_options(options, "runtime_options_string", "enable_profiling = true\n")
        self._add_options(options, "xnnpack", cpu_options(job))
        self._compiled = library.make(
            "LiteRtCreateCompiledModel", self._environment, model, options
        )
        signature = library.make("LiteRtGetModelSignature", model, ctypes.c_size_t(0))
        self._inputs = self._make_buffers(signature, "Input", job)
        self._outputs = self._make_buffers(signature, "Output", job)
        self._profiler = library.make("LiteRtCompiledModelGetProfiler", self._compiled)

    def run(self) -> None:
        """One inference.

        Raises:
            ModelError: It failed.
        """
        self._library.call(
            "LiteRtRunCompiledModel",
            self._compiled,
            ctypes.c_size_t(0),
            ctypes.c_size_t(len(self._inputs)),
            self._inputs,
            ctypes.c_size_t(len(self._outputs)),
            self._outputs,
        )

    def profile(self, runs: int) -> tuple[list[ProfilerEvent], list[float]]:
        """Some inferences with the profiler on: its events, and seconds per run by our clock.

        Raises:
            ModelError: A call failed, or a tag is not text.
        """
        call, walls_s = self._library.call, []
        call("LiteRtResetProfiler", self._profiler)
        call("LiteRtStartProfiler", self._profiler)
        for _ in range(runs):
            started_ns = time.perf_counter_ns()
            self.run()
            walls_s.append((time.perf_counter_ns() - started_ns) / 1e9)
        call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int(0)
        call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        if count.value <= 0:
            raise ModelError("LiteRT's profiler recorded nothing")
        events = (EventData * count.value)()
        call("LiteRtGetProfilerEvents", self._profiler, count, events)
        return [_read_event(event) for event in events], walls_s

    def _add_options(self, options: Handle, identifier: str, toml: str) -> None:
        text, deleter = ctypes.create_string_buffer(toml.encode()), Deleter(lambda _: None)
        self._kept += [text, deleter]
        opaque = self._library.make("LiteRtCreateOpaqueOptions", identifier.encode(), text, deleter)
        self._library.call("LiteRtAddOpaqueOptions", options, opaque)

    def _make_buffers(self, signature: Handle, side: str, job: ProfileJob) -> Any:
        count = ctypes.c_size_t(0)
        self._library.call(f"LiteRtGetNumSignature{side}s", signature, ctypes.byref(count))
        buffers = (Handle * count.value)()
        for number in range(count.value):
            index = ctypes.c_size_t(number)
            tensor = self._library.make(f"LiteRtGetSignature{side}TensorByIndex", signature, index)
            kind = RankedTensorType()
            self._library.call("LiteRtGetRankedTensorType", tensor, ctypes.byref(kind))
            wanted = self._library.make(
                f"LiteRtGetCompiledModel{side}BufferRequirements",
                self._compiled,
                ctypes.c_size_t(0),
                index,
            )
            buffer = self._library.make(
                "LiteRtCreateManagedTensorBufferFromRequirements",
                self._environment,
                ctypes.byref(kind),
                wanted,
            )
            buffers[number] = buffer.value
            if side == "Input":
                self._fill(buffer, tensor, kind, job)
        return buffers

    def _fill(
        self, buffer: Handle, tensor: Handle, kind: RankedTensorType, job: ProfileJob
    ) -> None:
        """The first golden input where its name and size fit, else values from a fixed seed."""
        size_bytes = ctypes.c_size_t(0)
        self._library.call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size_bytes))
        name = ctypes.c_char_p()
        self._library.call("LiteRtGetTensorName", tensor, ctypes.byref(name))
        data = _golden_bytes(job, (name.value or b"").decode(errors="replace"))
        if data is None or len(data) != size_bytes.value:
            data = _seeded_bytes(kind.element_type, size_bytes.value)
        address = Handle()
        self._library.call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), WRITE)
        ctypes.memmove(address, data, len(data))
        self._library.call("LiteRtUnlockTensorBuffer", buffer)


def _read_event(event: EventData) -> ProfilerEvent:
    try:
        tag = (event.tag or b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError("LiteRT's profiler gave a name that is not text") from error
    return ProfilerEvent(tag, event.event_type, event.elapsed_us, event.index)


def _golden_bytes(job: ProfileJob, name: str) -> bytes | None:
    tensor = job.golden.vectors[0].inputs.get(name) if job.golden is not None else None
    return None if tensor is None else unpack_tensor(tensor)


def _seeded_bytes(element_type: int, size_bytes: int) -> bytes:
    """Floats in [0, 1); zeros for every other type, whose range is not known here."""
    if element_type != FLOAT32:
        return bytes(size_bytes)
    generator = random.Random(0)  # noqa: S311 - not for security
    return array.array("f", (generator.random() for _ in range(size_bytes // 4))).tobytes()
