"""Build candidates: network passes, export, file passes, evaluation. Each step is cached by content.

A step's key covers its spec, the key of the step before, the data, the task's source, the training
settings and the versions of the tools, so recipes that share a beginning share its result, and a
second run computes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from trimtab_compressor.arrays import digest_file, digest_key
from trimtab_compressor.cache import Cache
from trimtab_compressor.checkpoint import load_checkpoint, load_ranges, save_checkpoint
from trimtab_compressor.evaluate import evaluate, read_host_cpu
from trimtab_compressor.export.table import EXPORTERS
from trimtab_compressor.network import new_network
from trimtab_compressor.passes.stage import FileStage, Findings, NetworkStage, Validation
from trimtab_compressor.passes.table import FILE_PASSES, NETWORK_PASSES
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.recipes import BASE_RECIPE, Choice, find_recipe
from trimtab_compressor.runtimes.port import Kernels, fit_samples
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.specs.base import FileSpec, Need, NetworkSpec, Spec
from trimtab_compressor.task import Task
from trimtab_compressor.threads import thread_count
from trimtab_protocol.manifest import ModelFormat, PassRecord, Quality, Scalar

AGREEMENT_SAMPLES = 512
TOOLS: dict[ModelFormat, tuple[str, ...]] = {
    ModelFormat.ONNX: ("torch", "torch-pruning", "onnx", "onnxruntime"),
    ModelFormat.TFLITE: (
        "torch",
        "torch-pruning",
        "litert-torch",
        "ai-edge-quantizer",
        "ai-edge-litert",
    ),
}


@dataclass(frozen=True)
class Built:
    """A finished candidate.

    Args:
        choice: Recipe and format.
        path: The model file, in the cache.
        size_bytes: Of the file.
        quality: With the base's accuracy in the same format.
        passes: What made it, with the seconds of each when it was first computed.
        base_sha256: Of the base in the same format; None for the base itself.
        seconds: Wall time of this call; near 0 if everything came from the cache.
    """

    choice: Choice
    path: Path
    size_bytes: int
    quality: Quality
    passes: tuple[PassRecord, ...]
    base_sha256: str | None
    seconds: float


@dataclass(frozen=True)
class _Step:
    key: str
    path: Path


class Builder:
    """Makes the candidates of one task.

    Args:
        task: What to compress.
        cache: Where results are kept.
        report: Told in one line what is about to be computed.
    """

    def __init__(self, task: Task, cache: Cache, report: Callable[[str], None]) -> None:
        self._task = task
        self._cache = cache
        self._report = report
        torch.set_num_threads(thread_count())

    def build(self, choice: Choice) -> Built:
        """Give one candidate, from the cache as far as possible.

        Raises:
            ModelError: A pass failed, or the file does not compute its network.
            ConfigError: The recipe does not exist or does not fit the task.
        """
        started = time.monotonic()
        own = self._evaluated(choice)
        base = own
        base_choice = Choice(BASE_RECIPE, choice.format)
        if choice != base_choice:
            base = self._evaluated(base_choice)
        step, quality = own
        return Built(
            choice=choice,
            path=step.path,
            size_bytes=step.path.stat().st_size,
            quality=quality.model_copy(update={"base": base[1].exact}),
            passes=self._records(choice),
            base_sha256=None if choice == base_choice else digest_file(base[0].path),
            seconds=time.monotonic() - started,
        )

    def tools(self, model_format: ModelFormat) -> dict[str, str]:
        """Versions of what made the candidates of a format."""
        return {name: version(name) for name in TOOLS[model_format]}

    def _evaluated(self, choice: Choice) -> tuple[_Step, Quality]:
        recipe = find_recipe(choice.recipe)
        file_specs = recipe.file_passes[choice.format]
        network = self._network(recipe.network_passes)
        model_file = self._file(network, file_specs, choice.format)
        key = digest_key(
            {
                "quality": model_file.key,
                "cpu": read_host_cpu(),
                "data": [self._task.data_sha256["test"], self._task.data_sha256["test_labels"]],
            }
        )

        def make(path: Path) -> None:
            self._report(f"evaluate {choice}")
            model, _ = load_checkpoint(self._task, network.path)
            quality = evaluate(
                model_file.path,
                self._task.test,
                reference=predict(model, self._task.test.inputs[:AGREEMENT_SAMPLES]).numpy(),
                is_quantized=any(not spec.is_exact for spec in file_specs),
            )
            path.write_text(quality.model_dump_json())

        found = self._cache.get_or_make(key, ".quality.json", make)
        return model_file, Quality.model_validate_json(found.read_text())

    def _network(self, specs: tuple[NetworkSpec, ...]) -> _Step:
        """The checkpoint after these passes."""
        spec, key = specs[-1], self._network_key(specs)

        def make(path: Path) -> None:
            stage = self._network_stage(specs)
            self._report(f"{spec.pass_name} {_describe(spec)}".rstrip())
            started = time.monotonic()
            made = NETWORK_PASSES[spec.pass_name](stage)
            self._note(key, started, made.findings)
            save_checkpoint(made.module, made.width, path, made.ranges)

        return _Step(key, self._cache.get_or_make(key, ".pt", make))

    def _network_stage(self, specs: tuple[NetworkSpec, ...]) -> NetworkStage[NetworkSpec]:
        if len(specs) == 1:
            new = new_network(self._task, 1.0)
            return NetworkStage(spec=specs[0], task=self._task, model=new, base=new)
        model, width = load_checkpoint(self._task, self._network(specs[:-1]).path)
        base, _ = load_checkpoint(self._task, self._network(specs[:1]).path)
        return NetworkStage(spec=specs[-1], task=self._task, model=model, base=base, width=width)

    def _exported(self, network: _Step, model_format: ModelFormat) -> _Step:
        key = digest_key({"export": network.key, "tools": self.tools(model_format)})

        def make(path: Path) -> None:
            self._report(f"export {model_format.value}")
            model, _ = load_checkpoint(self._task, network.path)
            EXPORTERS[model_format](model, self._task.input_shape, path)

        return _Step(key, self._cache.get_or_make(key, f".{model_format.value}", make))

    def _file(
        self, network: _Step, specs: tuple[FileSpec, ...], model_format: ModelFormat
    ) -> _Step:
        """The file of a network after these passes."""
        if not specs:
            return self._exported(network, model_format)
        spec, source = specs[-1], self._file(network, specs[:-1], model_format)
        key = self._file_key(source, spec)

        def make(path: Path) -> None:
            self._report(f"{spec.pass_name} {model_format.value} {_describe(spec)}".rstrip())
            stage = self._file_stage(spec, network, source.path, path)
            started = time.monotonic()
            findings = FILE_PASSES[(spec.pass_name, model_format)](stage)
            self._note(key, started, findings)

        return _Step(key, self._cache.get_or_make(key, f".{model_format.value}", make))

    def _file_stage(
        self, spec: FileSpec, network: _Step, source: Path, target: Path
    ) -> FileStage[FileSpec]:
        io, task = open_model(source, Kernels.EXACT).io, self._task
        validation = None
        if Need.VALIDATION in spec.needs:
            model, _ = load_checkpoint(task, network.path)
            validation = Validation(
                inputs=fit_samples(io, task.test.inputs, what="test samples"),
                labels=task.test.labels,
                reference=predict(model, task.test.inputs).numpy(),
            )
        calibration = fit_samples(io, task.calibration, what="calibration samples")
        ranges = load_ranges(network.path)
        return FileStage(spec, source, target, calibration, validation, ranges)

    def _network_key(self, specs: tuple[NetworkSpec, ...]) -> str:
        task = self._task
        return digest_key(
            {
                "passes": [[spec.pass_name, spec.revision, spec.parameters()] for spec in specs],
                "training": asdict(task.training),
                "source": task.source_sha256,
                "data": [task.data_sha256["train"], task.data_sha256["train_labels"]],
                "ignored": list(task.ignored_layers),
                "tools": [version("torch"), version("torch-pruning")],
            }
        )

    def _file_key(self, source: _Step, spec: FileSpec) -> str:
        parts: dict[str, object] = {
            "source": source.key,
            "pass": [spec.pass_name, spec.revision],
            "parameters": spec.parameters(),
            "calibration": self._task.data_sha256["calibration"],
        }
        if Need.VALIDATION in spec.needs:
            data = self._task.data_sha256
            parts["validation"] = [data["test"], data["test_labels"]]
        return digest_key(parts)

    def _note(self, key: str, started: float, findings: Findings) -> None:
        """Keep beside a result what is not in it."""
        note = {"seconds": round(time.monotonic() - started, 3), "findings": dict(findings)}
        self._cache.path(key, ".note.json").write_text(json.dumps(note))

    def _records(self, choice: Choice) -> tuple[PassRecord, ...]:
        recipe = find_recipe(choice.recipe)
        specs, file_specs = recipe.network_passes, recipe.file_passes[choice.format]
        records = [
            self._record(specs[end], self._network_key(specs[: end + 1]))
            for end in range(len(specs))
        ]
        network = self._network(specs)
        for end, spec in enumerate(file_specs):
            source = self._file(network, file_specs[:end], choice.format)
            records.append(self._record(spec, self._file_key(source, spec)))
        return tuple(records)

    def _record(self, spec: Spec, key: str) -> PassRecord:
        parameters: dict[str, Scalar] = dict(spec.parameters())
        if isinstance(spec, NetworkSpec):
            parameters |= asdict(self._task.training)
        path = self._cache.path(key, ".note.json")
        note = json.loads(path.read_text()) if path.is_file() else {}
        return PassRecord(name=spec.pass_name, parameters=parameters, **note)


def _describe(spec: Spec) -> str:
    return " ".join(f"{name}={value}" for name, value in spec.parameters().items())
