"""What is known beforehand about speed on a kind of device: priors, never measurements.

A prior says what others found, or what this project found on one named machine, with models of their
own. It ranks what is worth trying first; `fit` then measures on the device, and what is measured
replaces it. Rules:
    1. Every figure has its source beside it.
    2. A gain is a ratio of latencies, float over compressed: above 1 is faster.
    3. No gain means: no fast kernel is known, so only the size shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trimtab_compressor.device_kinds import GENERIC, Kind
from trimtab_protocol.manifest import ModelFormat


class Technique(str, Enum):
    """What a pass does to the arithmetic, as far as speed depends on it."""

    STATIC_U8S8 = "static_u8s8"  # activations with a zero point
    STATIC_S8S8 = "static_s8s8"  # activations around zero
    STATIC_U8U8 = "static_u8u8"  # weights with a zero point too
    STATIC_16X8 = "static_16x8"
    DYNAMIC = "dynamic"
    DYNAMIC_CONV = "dynamic_conv"  # ONNX: convolutions too
    FLOAT16 = "float16"  # of the weights; TFLite may compute with it
    WEIGHT_ONLY = "weight_only"
    SPARSE = "sparse"  # zeros among the weights, shapes as before


@dataclass(frozen=True)
class Prior:
    """An expected gain.

    Args:
        low: The least that is expected.
        high: The most; both None if only the size shrinks.
        reason: Why, in a sentence.
        source: Where the figures come from.
    """

    low: float | None
    high: float | None
    reason: str
    source: str


HERE = "measured by this project, ONNX Runtime 1.32, AMD Zen 3 (AVX2 without VNNI), one thread"
_ORT_QUANT = "ONNX Runtime, quantization.md"
_XNN_README = "XNNPACK, README: MobileNetV1 and V2 per channel, several threads"
_LITERT_README = "LiteRT, XNNPACK delegate README"
_AEQ = "TensorFlow blog 2024-04; AI Edge Quantizer, README"
_ARM = "Arm, resnet-18-int8-xnnpack-executorch on a Pi 5 (2026)"
_ACL = "ComputeLibrary issue 855"

ONNX, TFLITE = ModelFormat.ONNX, ModelFormat.TFLITE
_T = Technique
_NO_KERNEL = "no fast kernels for it on CPUs: only smaller"

_ANYWHERE: dict[tuple[ModelFormat, Technique], Prior] = {
    (ONNX, _T.FLOAT16): Prior(
        None, None, "weights become float32 when the file is loaded: only smaller",
        "ONNX Runtime has no float16 kernels for CPUs: issues 25824, 28505, 23746",
    ),
    (ONNX, _T.DYNAMIC_CONV): Prior(
        0.09, 0.9, "integer convolutions without static ranges have no fast kernel",
        f"{HERE}: MobileNetV2 0.12 to 0.27, ResNet-18 0.39 to 0.90, ResNet-8 0.17 to 0.60",
    ),
    (TFLITE, _T.FLOAT16): Prior(
        None, None, "XNNPACK computes it in float32 here: only smaller", _LITERT_README
    ),
    (ONNX, _T.WEIGHT_ONLY): Prior(
        1.0, 1.35, "dense layers only: pays where weights are read more than multiplied",
        f"{HERE}: 1.35 on an MNIST CNN with int4 dense layers",
    ),
    (TFLITE, _T.WEIGHT_ONLY): Prior(
        None, None, "weights become floats before they are used: only smaller",
        f"{HERE}, LiteRT 2.3: 1.0 on MobileNetV2",
    ),
    (TFLITE, _T.STATIC_16X8): Prior(
        None, None, _NO_KERNEL, "AI Edge Quantizer, table of kernels; XNNPACK, list of operators"
    ),
    (ONNX, _T.STATIC_16X8): Prior(None, None, _NO_KERNEL, _ORT_QUANT),
    (ONNX, _T.SPARSE): Prior(
        None, None, "zeros are multiplied too: smaller only where it is compressed", _ORT_QUANT
    ),
    (TFLITE, _T.SPARSE): Prior(
        None, None,
        "XNNPACK skips zeros only in nets of 1×1 convolutions with 2/3 zeros: smaller only where it "
        "is compressed",
        _LITERT_README,
    ),
    (ONNX, _T.DYNAMIC): Prior(
        1.0, 1.8, "dense layers only: what it gives follows their share of the work",
        f"{HERE}: 1.8 on an MNIST CNN whose work is dense; convolutions are left in float (0.12 to "
        "0.90 with them)",
    ),
    (TFLITE, _T.DYNAMIC): Prior(
        1.0, 4.0, "dense layers and plain convolutions: nothing for depthwise ones", _AEQ
    ),
}  # fmt: skip
"""Where the kind of CPU makes no difference, or nobody said that it does."""

_DOT = (
    "SDOT and UDOT multiply four bytes at a time",
    f"ONNX Runtime pull requests 9902, 17160; {_ACL} (1.5 and more only with dot product)",
)
_NO_DOT = (
    "no dot product: ONNX Runtime gains by threads and memory only",
    f"ONNX Runtime pull requests 9902, 9772, 9655 (MobileNetV1 0.96 on a Pixel 3a); {_ACL}",
)
_HALF = Prior(
    1.0,
    2.0,
    "float16 arithmetic, if the file carries reduced_precision_support",
    "TensorFlow blog 'Half-precision inference doubles on-device performance'; " + _LITERT_README,
)

_A72: dict[tuple[ModelFormat, Technique], Prior] = {
    (ONNX, _T.STATIC_S8S8): Prior(1.0, 1.5, *_NO_DOT),
    (ONNX, _T.STATIC_U8S8): Prior(
        0.9, 1.4, "goes through the S8S8 kernels; " + _NO_DOT[0], _NO_DOT[1]
    ),
    (TFLITE, _T.STATIC_U8S8): Prior(
        2.5,
        3.2,
        "XNNPACK's int8 kernels pay without a dot product too",
        f"{_XNN_README}: Pi 4 77 to 24 ms and 46 to 17 ms, Pi 3+ 114 to 46 ms",
    ),
}
_A76: dict[tuple[ModelFormat, Technique], Prior] = {
    (ONNX, _T.STATIC_S8S8): Prior(2.0, 3.5, *_DOT),
    (ONNX, _T.STATIC_U8S8): Prior(2.0, 3.3, *_DOT),
    (TFLITE, _T.STATIC_U8S8): Prior(
        2.0, 4.0, "XNNPACK with dot product", f"{_ARM}: 3.6 on ResNet-18; {_XNN_README}"
    ),
    (TFLITE, _T.FLOAT16): _HALF,
}

PRIORS: dict[str, dict[tuple[ModelFormat, Technique], Prior]] = {
    "x86-avx2": {
        (ONNX, _T.STATIC_U8S8): Prior(1.16, 2.4, "the small gain is of small nets, the large one of plain convolutions; weights of 7 bits avoid saturation", f"{HERE}: MobileNetV2 1.64, ResNet-18 2.34, ResNet-8 1.35, DS-CNN 1.16"),
        (ONNX, _T.STATIC_S8S8): Prior(0.73, 1.2, "S8S8 has no fast kernel without VNNI", f"{HERE}: MobileNetV2 1.01, ResNet-18 1.20, ResNet-8 0.73, DS-CNN 1.13"),
        (ONNX, _T.STATIC_U8U8): Prior(0.89, 1.86, "cannot saturate, at a cost", f"{HERE}: MobileNetV2 1.19, ResNet-18 1.86, ResNet-8 0.91, DS-CNN 0.89"),
        (TFLITE, _T.STATIC_U8S8): Prior(0.85, 1.1, "XNNPACK gains nothing by int8 without VNNI", f"{HERE}, LiteRT 2.3: 0.88 on MobileNetV2, 0.92 on an MNIST CNN"),
        (TFLITE, _T.DYNAMIC): Prior(0.5, 1.5, "pays for dense layers, costs for depthwise convolutions", f"{HERE}, LiteRT 2.3: 0.52 on MobileNetV2, 1.46 on an MNIST CNN"),
    },
    "x86-vnni": {
        (ONNX, _T.STATIC_U8S8): Prior(2.0, 4.0, "VNNI multiplies and adds four bytes at once", _ORT_QUANT),
    },
    "pi3": _A72,
    "pi4": _A72,
    "pi5": _A76,
    "orin-cpu": _A76,
    "jetson-gpu": {
        (ONNX, _T.STATIC_S8S8): Prior(1.0, 1.5, "against float16, which is the baseline there; symmetric activations, explicit Q/DQ", "TensorRT; ModelOpt 0.47 keeps Q/DQ only from 1.02 on"),
        (ONNX, _T.STATIC_U8S8): Prior(None, None, "TensorRT takes symmetric activations only", "TensorRT, explicit quantization"),
        (ONNX, _T.FLOAT16): Prior(
            1.0, 1.0, "the baseline there: what int8 gains is counted against it", "TensorRT"
        ),
    },
    GENERIC: {},
}  # fmt: skip

CPU_KINDS = ("x86-avx2", "x86-vnni", "pi4", "pi5")
"""Those whose priors differ."""

SIZE_RATIOS: dict[Technique, tuple[float, str]] = {
    _T.STATIC_U8S8: (
        0.25,
        f"{HERE}: 9.3 to 2.7 MB on MobileNetV2, 2.78 to 0.70 MB on an MNIST CNN",
    ),
    _T.STATIC_S8S8: (0.25, f"{HERE}: 9.3 to 2.7 MB on MobileNetV2"),
    _T.STATIC_U8U8: (0.25, "weights of 8 bits"),
    _T.STATIC_16X8: (0.25, "weights of 8 bits"),
    _T.DYNAMIC_CONV: (0.25, "weights of 8 bits"),
    _T.DYNAMIC: (0.25, "weights of 8 bits"),
    _T.FLOAT16: (0.5, f"{HERE}: 2.78 to 1.40 MB on an MNIST CNN"),
    _T.WEIGHT_ONLY: (0.25, "weights of 8 bits; a half of it with 4"),
    _T.SPARSE: (1.0, "zeros take as much room as other weights until the file is compressed"),
}
"""Expected bytes, as a ratio to float32, of the layers that a technique reaches."""

PRUNED_HALF = Prior(
    2.0, 3.1, "half of the channels is a quarter to a third of the work",
    f"{HERE}: MobileNetV2, 320 to 90 million MACs, 8.6 to 2.8 ms in float32",
)  # fmt: skip
"""Of removing half of all channels; other ratios are scaled by the work that is left."""


def _same_as(kind: str, model_format: ModelFormat, technique: Technique) -> Technique:
    """Techniques without figures of their own take those of the one that runs on the same kernels."""
    if model_format is TFLITE:
        return _TFLITE_KERNELS.get(technique, technique)
    is_known = (model_format, technique) in PRIORS[kind]
    return (
        Technique.STATIC_U8S8 if technique is Technique.STATIC_U8U8 and not is_known else technique
    )


_TFLITE_KERNELS = {
    Technique.STATIC_S8S8: Technique.STATIC_U8S8,
    Technique.STATIC_U8U8: Technique.STATIC_U8S8,
    Technique.DYNAMIC_CONV: Technique.DYNAMIC,
}
"""TFLite has one scheme of each."""


def find_prior(kind: Kind, model_format: ModelFormat, technique: Technique) -> Prior:
    """The kind's own prior, else the span of all CPUs, else the one for anywhere."""
    technique = _same_as(kind.name, model_format, technique)
    key = (model_format, technique)
    own = PRIORS[kind.name].get(key)
    if own is not None:
        return own
    others = [PRIORS[name][key] for name in CPU_KINDS if key in PRIORS[name]]
    if not others or technique in (Technique.DYNAMIC, Technique.FLOAT16):
        return _ANYWHERE[key]
    return Prior(
        min(row.low for row in others if row.low is not None),
        max(row.high for row in others if row.high is not None),
        "nothing is known for this CPU: the span of the others",
        "; ".join(dict.fromkeys(row.source for row in others)),
    )
