"""What runs frozen models: Keras or, faster on a CPU, OpenVINO.

A converted model is an artifact; in float32 its outputs agree with those of Keras to about 1e-6.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fashion_keras.artifacts import fingerprint, made_once
from fashion_keras.cli import stage
from fashion_keras.config import InputError

Run = Callable[[Any], Any]  # From pixels to an array, or to a dictionary of arrays.

KERAS = "keras"
_LAYOUT = 1  # Raise it when models converted by older versions must not be used any more.
_HINTS = {"float32": "f32", "mixed_bfloat16": "bf16"}  # OpenVINO's names of precisions.
_ONLY = "output"  # Name of the output of a model that gives no dictionary.
# Converting takes 5 s, and saves 16 ms for each photo of 299 x 299 pixels in a batch (two cores).
_WORTH_CONVERTING = 320 * 299**2  # Pixels.


def measured(cache: Path, facts: dict[str, Any], measure: Callable[[], Any]) -> Any:
    """Return how fast something is on this device: JSON values, measured once and kept.

    `facts` are JSON values, too: what `measure` measures, and all but the device that decides it.
    """
    from fashion_keras.backend import device

    threads = os.environ.get("TF_NUM_INTRAOP_THREADS")
    key = fingerprint(facts=facts, device=device(), threads=threads)

    @stage("measuring the speed of this machine")
    def write(unfinished: Path) -> None:
        print("measuring the speed of this machine", flush=True)
        unfinished.write_text(json.dumps(measure()), encoding="utf-8")

    return json.loads(made_once(cache / "speeds" / key, write).read_text(encoding="utf-8"))


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which sends a message at each import.

    Raises:
        InputError: If it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        raise InputError(
            f'OpenVINO is not installed on {platform.node()}: pip install "fashion_keras[cpu]"'
        ) from error


def engines(photos: float, side: int, precision: str = "float32") -> list[str]:
    """Return what can run a frozen model here, the best first: `KERAS`, others with their version.

    Args:
        photos: Number of photos to process.
        side: Of the photos, in pixels.
        precision: In force; see `Config.precision`.
    """
    if precision not in _HINTS or not _on_cpu() or not _installed():
        return [KERAS]
    found = [f"openvino {importlib.metadata.version('openvino')}", KERAS]
    return found if _many(photos, side) else found[::-1]


def advise(photos: float, side: int, precision: str = "float32") -> None:
    """Say, once, what OpenVINO would gain, if it is missing; for the arguments see `engines`."""
    if precision in _HINTS and _many(photos, side) and _on_cpu() and not _installed():
        _advise()


@functools.cache
def _advise() -> None:
    gain = "OpenVINO saves a tenth to a third of the time"
    # Rows of predictions are printed on standard output.
    print(f"{gain} here: pip install 'fashion_keras[cpu]'", file=sys.stderr, flush=True)


def _many(photos: float, side: int) -> bool:
    return photos * side**2 >= _WORTH_CONVERTING


def _installed() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _on_cpu() -> bool:
    """Return whether TensorFlow computes, on a CPU: models of other backends are not converted."""
    from fashion_keras.backend import cards, keras

    return keras.backend.backend() == "tensorflow" and not cards()


class OpenVINO:
    """A converted model; it computes on the CPU and is compiled at its first call.

    Photos of a batch go through it one by one, one on each core, which gives the same bits: cores
    that wait for each other lose time when other threads decode photos. A few photos share all.
    A pickle holds all of it, so it can be sent to another computer.

    Args:
        file: The `.xml` file, with its `.bin` beside it; or the content of such a file.
        precision: In force; see `Config.precision`. What it gives is float32 in any case.
        weights: The content of the `.bin`, uint8, if `file` is the content of the `.xml`.
    """

    def __init__(
        self, file: Path | bytes, precision: str = "float32", weights: np.ndarray | None = None
    ) -> None:
        self.file, self._precision, self._weights = file, precision, weights
        self._lock = threading.Lock()  # Requests of OpenVINO serve one caller at a time.

    def _compile(self, hint: str) -> Any:
        openvino = import_openvino()
        core: Any = openvino.Core()
        if isinstance(self.file, Path):
            model = core.read_model(str(self.file))
        else:
            model = core.read_model(self.file, openvino.Tensor(self._weights))
        # Some CPUs would choose bfloat16. Of several processes, each would take the first cores.
        options = {"INFERENCE_PRECISION_HINT": _HINTS[self._precision], "ENABLE_CPU_PINNING": "NO"}
        if threads := os.environ.get("TF_NUM_INTRAOP_THREADS"):
            options["INFERENCE_NUM_THREADS"] = threads
        return core.compile_model(model, "CPU", options | {"PERFORMANCE_HINT": hint})

    @functools.cached_property
    def _together(self) -> Any:
        return self._compile("LATENCY").create_infer_request()

    @functools.cached_property
    def _one_by_one(self) -> Any:
        return import_openvino().AsyncInferQueue(self._compile("THROUGHPUT"))

    def __call__(self, pixels: Any) -> Any:
        """Return what the model of Keras gives for pixels `(batch, height, width, 3)`."""
        pixels = np.ascontiguousarray(pixels, "float32")
        with self._lock:
            if 1 < len(pixels) >= len(self._one_by_one):
                found = self._each(pixels)
            else:
                self._together.infer(pixels)
                found = [_copied(self._together)]
        arrays = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        return arrays.get(_ONLY, arrays)

    def _each(self, pixels: np.ndarray) -> list[dict[str, np.ndarray]]:
        found: list[Any] = [None] * len(pixels)

        def keep(done: Any, number: int) -> None:
            found[number] = _copied(done)

        self._one_by_one.set_callback(keep)
        for number in range(len(pixels)):
            self._one_by_one.start_async(pixels[number : number + 1], number)
        self._one_by_one.wait_all()
        return found

    def __reduce__(self) -> tuple:
        if not isinstance(self.file, Path):
            return OpenVINO, (self.file, self._precision, self._weights)
        weights = np.fromfile(self.file.with_suffix(".bin"), "uint8")
        return OpenVINO, (self.file.read_bytes(), self._precision, weights)


def _copied(request: Any) -> dict[str, np.ndarray]:
    outputs = request.model_outputs
    return {one.get_any_name(): request.get_tensor(one).data.copy() for one in outputs}


def converted(model: Any, side: int | None, cache: Path, facts: dict[str, Any]) -> OpenVINO | None:
    """Return a model of Keras converted, once; None, and a line that says so, if it cannot be.

    Args:
        model: From pixels `(batch, height, width, 3)`.
        side: Of all photos, in pixels; None if they come in any height and width.
        cache: The converted model is kept in it.
        facts: All that decides what it gives, as JSON values; without `precision`, float32.
    """
    try:
        place = made_once(_place(side, cache, facts), lambda folder: _convert(model, side, folder))
    except OSError:
        raise
    except Exception as error:  # OpenVINO and Keras raise many kinds for what they cannot convert.
        _say_keras_runs(error)
        return None
    return OpenVINO(place / "model.xml", facts.get("precision", "float32"))


def for_classifier(model: Any, photos: float, side: int, cache: Path) -> OpenVINO | None:
    """Return what is worth converting, or is converted, for photos of any size; else None.

    `photos` is their number, `side` that to which the model resizes them, in pixels; for all else
    see `converted`.
    """
    from fashion_keras.model import weights_digest

    advise(photos, side)
    best, *others = engines(photos, side)
    if not others:
        return None
    facts = {"weights": weights_digest(model), "model": model.to_json()}
    if best == KERAS and not _place(None, cache, facts).exists():
        return None
    try:
        return converted(model, None, cache, facts)
    except OSError as error:  # Photos can be predicted without a folder to write to.
        _say_keras_runs(error)
        return None


def _say_keras_runs(error: Exception) -> None:
    reason = textwrap.shorten(str(error), 200)
    print(f"OpenVINO cannot be used, Keras runs: {reason}", file=sys.stderr, flush=True)


def _place(side: int | None, cache: Path, facts: dict[str, Any]) -> Path:
    from fashion_keras.model import versions

    known = [*versions(), importlib.metadata.version("openvino")]
    return cache / "engines" / fingerprint(facts=facts, side=side, versions=known, layout=_LAYOUT)


@stage("converting the model for OpenVINO")
def _convert(model: Any, side: int | None, folder: Path) -> None:
    from fashion_keras.backend import keras, quiet

    import_openvino()  # Keras would import it with its telemetry.
    folder.mkdir()
    pixels = keras.Input((side, side, 3), name="pixels")
    outputs = model(pixels, training=False)
    whole = keras.Model(pixels, outputs if isinstance(outputs, dict) else {_ONLY: outputs})
    # While a service loads a new model, other threads print.
    alone = threading.current_thread() is threading.main_thread()
    with quiet(1, 2) if alone else contextlib.nullcontext():
        whole.export(str(folder / "model.xml"), format="openvino", verbose=False)
