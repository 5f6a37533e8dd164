"""Build candidates: network passes, export, file pass, evaluation. Each step is cached by content.

A step's key covers its spec, the key of the step before, the data, the task's source, the training
settings and the versions of the tools, so recipes that share a beginning share its result, and a
second run computes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from trimtab_compressor.arrays import digest_file, digest_key
from trimtab_compressor.cache import Cache
from trimtab_compressor.checkpoint import load_checkpoint, save_checkpoint
from trimtab_compressor.evaluate import evaluate, read_host_cpu
from trimtab_compressor.export.table import EXPORTERS
from trimtab_compressor.network import new_network
from trimtab_compressor.passes.specs import Distill, FileSpec, PruneChannels, Spec, TorchSpec, Train
from trimtab_compressor.passes.stage import FileStage, TorchStage
from trimtab_compressor.passes.table import FILE_PASSES, PASSES
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.recipes import BASE_RECIPE, Choice, find_recipe
from trimtab_compressor.task import Task
from trimtab_compressor.threads import thread_count
from trimtab_protocol.manifest import ModelFormat, PassRecord, Quality, Scalar

ResultT = TypeVar("ResultT")

AGREEMENT_SAMPLES = 512
CODE_VERSION = 1
"""Raise it when a pass changes what it computes."""

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
        network = self._network(recipe.torch_passes)
        file_spec = recipe.file_passes[choice.format]
        model_file = self._exported(network, choice.format)
        if file_spec is not None:
            model_file = self._quantized(model_file, file_spec, choice.format)
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
                is_quantized=file_spec is not None,
            )
            path.write_text(quality.model_dump_json())

        found = self._cache.get_or_make(key, ".quality.json", make)
        return model_file, Quality.model_validate_json(found.read_text())

    def _network(self, specs: tuple[TorchSpec, ...]) -> _Step:
        """The checkpoint after these passes."""
        key = self._network_key(specs)

        def make(path: Path) -> None:
            model, width = self._input_of(specs)
            base = (
                model
                if len(specs) == 1
                else load_checkpoint(self._task, self._network(specs[:1]).path)[0]
            )
            self._report(f"{specs[-1].pass_name} {_describe(specs[-1])}".rstrip())
            stage = TorchStage(spec=specs[-1], task=self._task, model=model, base=base)
            made = self._timed(key, lambda: PASSES[specs[-1].pass_name](stage))
            save_checkpoint(made, width, path)

        return _Step(key, self._cache.get_or_make(key, ".pt", make))

    def _input_of(self, specs: tuple[TorchSpec, ...]) -> tuple[nn.Module, float]:
        last = specs[-1]
        if isinstance(last, Train):
            return new_network(self._task, 1.0), 1.0
        model, width = load_checkpoint(self._task, self._network(specs[:-1]).path)
        is_new_student = isinstance(last, Distill) and last.width is not None
        return model, last.width if is_new_student else width  # type: ignore[return-value, union-attr]

    def _exported(self, network: _Step, model_format: ModelFormat) -> _Step:
        key = digest_key({"export": network.key, "tools": self.tools(model_format)})

        def make(path: Path) -> None:
            self._report(f"export {model_format.value}")
            model, _ = load_checkpoint(self._task, network.path)
            EXPORTERS[model_format](model, self._task.input_shape, path)

        return _Step(key, self._cache.get_or_make(key, f".{model_format.value}", make))

    def _quantized(self, source: _Step, spec: FileSpec, model_format: ModelFormat) -> _Step:
        key = self._file_key(source, spec)

        def make(path: Path) -> None:
            self._report(f"{spec.pass_name} {model_format.value} {_describe(spec)}".rstrip())
            stage = FileStage(
                spec=spec, source=source.path, target=path, calibration=self._task.calibration
            )
            self._timed(key, lambda: FILE_PASSES[(spec.pass_name, model_format)](stage))

        return _Step(key, self._cache.get_or_make(key, f".{model_format.value}", make))

    def _network_key(self, specs: tuple[TorchSpec, ...]) -> str:
        task = self._task
        return digest_key(
            {
                "code": CODE_VERSION,
                "passes": [[spec.pass_name, spec.parameters()] for spec in specs],
                "training": asdict(task.training),
                "source": task.source_sha256,
                "data": [task.data_sha256["train"], task.data_sha256["train_labels"]],
                "ignored": list(task.ignored_layers),
                "tools": [version("torch"), version("torch-pruning")],
            }
        )

    def _file_key(self, source: _Step, spec: FileSpec) -> str:
        return digest_key(
            {
                "code": CODE_VERSION,
                "source": source.key,
                "pass": spec.pass_name,
                "parameters": spec.parameters(),
                "calibration": self._task.data_sha256["calibration"],
            }
        )

    def _timed(self, key: str, work: Callable[[], ResultT]) -> ResultT:
        started = time.monotonic()
        result = work()
        self._cache.path(key, ".seconds").write_text(f"{time.monotonic() - started:.3f}")
        return result

    def _records(self, choice: Choice) -> tuple[PassRecord, ...]:
        recipe = find_recipe(choice.recipe)
        specs = recipe.torch_passes
        records = [
            self._record(specs[end], self._network_key(specs[: end + 1]))
            for end in range(len(specs))
        ]
        file_spec = recipe.file_passes[choice.format]
        if file_spec is not None:
            exported = self._exported(self._network(specs), choice.format)
            records.append(self._record(file_spec, self._file_key(exported, file_spec)))
        return tuple(records)

    def _record(self, spec: Spec, key: str) -> PassRecord:
        parameters: dict[str, Scalar] = dict(spec.parameters())
        if isinstance(spec, Train | PruneChannels | Distill):
            parameters |= asdict(self._task.training)
        took = self._cache.path(key, ".seconds")
        seconds = float(took.read_text()) if took.is_file() else None
        return PassRecord(name=spec.pass_name, parameters=parameters, seconds=seconds)


def _describe(spec: Spec) -> str:
    return " ".join(f"{name}={value}" for name, value in spec.parameters().items())
