"""The devices that compute, the precision in which they do, and models for both.

Beside `data` the only module that imports TensorFlow: several graphics cards work together by
`tf.distribute`.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# What a device or the host says when it has no memory left; some only in words.
OUT_OF_MEMORY = (tf.errors.ResourceExhaustedError, MemoryError)
MISTAKEN_OUT_OF_MEMORY = (tf.errors.InternalError, tf.errors.UnknownError)


@functools.cache
def strategy() -> Any:
    """Return how work is shared: between all graphics cards if there are several, or not at all.

    The CPU counts as several devices only for TensorFlow that was told so by
    `tf.config.set_logical_device_configuration`.
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    print(f"working on {len(devices)} devices", flush=True)
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def count() -> int:
    """Return how many devices share the work."""
    return strategy().num_replicas_in_sync


@functools.cache
def precision_in_force(wanted: str) -> str:
    """Return the precision to compute in; float32, and a line that says so, if `wanted` is slower.

    Graphics cards compute in all of them. On CPUs bfloat16 gains with AMX, and float16 loses
    (measured: see `results/devices.md`).

    Args:
        wanted: See `Config.precision`.
    """
    fast = wanted == "mixed_bfloat16" and "amx_bf16" in _cpu_flags()
    if wanted == "float32" or fast or keras.distribution.list_devices("gpu"):
        return wanted
    print(f"{wanted} would be no faster on this CPU: computing in float32", flush=True)
    return "float32"


def _cpu_flags() -> list[str]:
    told = Path("/proc/cpuinfo")  # On Linux alone; elsewhere no CPU is known to gain.
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    return next((line.split() for line in lines if line.startswith("flags")), [])


def copied(model: keras.Model, precision: str = "float32") -> keras.Model:
    """Return a copy of a model with weights of its own, for the strategy in whose scope it is made.

    Args:
        model: A functional model; only a model of plain layers can change its precision.
        precision: In which the copy computes; its weights are float32 in any case.
    """

    def anew(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config(layer.get_config() | {"dtype": precision})

    options: dict[str, Any] = {} if precision == "float32" else {"clone_function": anew}
    copy = keras.models.clone_model(model, **options)
    copy.set_weights(model.get_weights())
    return copy


def on_each(model: keras.Model) -> Callable[[Sequence[Any]], list[dict[str, np.ndarray]]]:
    """Return a function that calls a model on batches of one size, one on each device.

    A batch is never divided between devices, so that its numbers are the same to the last bit
    however many there are.

    Args:
        model: Made in the scope of `strategy`; its outputs have names.

    Returns:
        Function from at most `count()` batches to what the model gives for each.
    """
    if count() == 1:
        return lambda batches: [model.predict_on_batch(pixels) for pixels in batches]
    compute = tf.function(functools.partial(model, training=False), reduce_retracing=True)

    def together(batches: Sequence[Any]) -> list[dict[str, np.ndarray]]:
        filled = [*batches, *[batches[-1]] * (count() - len(batches))]
        values = strategy().experimental_distribute_values_from_function(
            lambda place: tf.convert_to_tensor(filled[place.replica_id_in_sync_group])
        )
        found = strategy().run(compute, args=(values,))
        parts = {name: strategy().experimental_local_results(one) for name, one in found.items()}
        return [
            {name: one[number].numpy() for name, one in parts.items()}
            for number in range(len(batches))
        ]

    return together


def build_metrics(model: Any, batches: Any) -> None:
    """Build the metrics of a model that several devices will train.

    Keras would take a batch from the photos to be trained on for it; they would come in another
    order then than on one device.

    Args:
        model: A compiled model.
        batches: Dataset like that for training, in a fixed order.
    """
    if count() > 1:
        model._maybe_symbolic_build(data_batch=next(iter(batches)))
        model._maybe_symbolic_build = lambda **_: None


def shared(batches: Any, parts: int, devices: int = 1) -> Any:
    """Cut each batch into parts that devices can share evenly; their mean stays the batch's.

    What is missing for that in a batch, mostly in the last, is filled up with photos of the same
    batch that weigh nothing. (In the loss that is shown of a pass, though not in gradients, such a
    batch counts as if it were that much larger.)

    Args:
        batches: Dataset of inputs and true values `(batch, ...)`.
        parts: Parts of each batch.
        devices: Devices that share each part.

    Returns:
        Dataset of inputs, true values and weights; `batches` itself if there is nothing to cut.
    """
    if parts * devices == 1:
        return batches

    def fine_tune_from(inputs: Any, true: Any) -> Any:
        photos = tf.shape(true)[0]
        size = -(-photos // (parts * devices)) * devices
        rows = tf.range(size * parts)
        weights = tf.where(rows < photos, tf.cast(size * parts / photos, tf.float32), 0.0)
        whole = (tf.gather(inputs, rows % photos), tf.gather(true, rows % photos), weights)
        return tf.data.Dataset.from_tensor_slices(tuple(_divided(one, parts) for one in whole))

    steps = batches.cardinality() * parts
    return batches.flat_map(fine_tune_from).apply(tf.data.experimental.assert_cardinality(steps))


def smaller(batches: Any, size: int, photos: int) -> Any:
    """Return a dataset of so many photos in batches of another size, without weights."""
    steps = -(-photos // size)  # By itself TensorFlow counts too many.
    return batches.rebatch(size).apply(tf.data.experimental.assert_cardinality(steps))


def _divided(rows: Any, parts: int) -> Any:
    """Return `(rows, ...)` as `(parts, rows / parts, ...)`."""
    divided = tf.reshape(rows, tf.concat([[parts, -1], tf.shape(rows)[1:]], axis=0))
    return tf.ensure_shape(divided, (parts, None, *rows.shape[1:]))
