"""Compiles and fits a head on the features of a frozen backbone."""

import csv
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_keras import model as models
from fashion_keras.artifacts import fingerprint, made_once
from fashion_keras.backend import array, check_device, keras, tensorflow, torch_generator
from fashion_keras.cli import stage
from fashion_keras.config import Config, InputError, deciding
from fashion_keras.data.batches import class_numbers, class_weights, feature_batches, one_hot
from fashion_keras.data.prepare import Prepared, prepare, summary, validation_warning
from fashion_keras.features import Features, FeatureStore, training_arrays
from fashion_keras.model import build_backbone, build_head, versions

# With smoothed labels and averaged weights the loss finds the best epoch better than accuracy,
# which moves in steps of a photo (cross-validation over 3409 photos: 0.884 against 0.881).
MONITOR = "val_loss"
_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "val_balanced_accuracy")
_LAYOUT = 3  # Raise it when heads trained by older versions must not be used any more.

# A row an epoch: epoch, loss, accuracy, val_loss, val_accuracy, seconds, and the objective.
History = list[dict[str, Any]]


class Datasets(NamedTuple):
    """What models are trained on: photos, and their features through the frozen backbone."""

    prepared: Prepared
    backbone: keras.Model
    store: FeatureStore


class HeadData(NamedTuple):
    """What a head is trained on, as plain arrays that can be sent to another process.

    Features are `(photos, channels)` float32, classes are numbers, `(photos,)` int32.
    """

    copies: Sequence[Features]  # Of the training photos as they are, then of each augmented copy.
    classes: np.ndarray
    validation: Features
    validation_classes: np.ndarray
    labels: list[str]


class TrainedHead(NamedTuple):
    """A head, not compiled, with the weights of its best epoch, whose row is `best`."""

    head: keras.Model
    history: History
    best: dict[str, float]


@stage("weights")
def open_datasets(config: Config, prepared: Prepared, cache: Path, workers: int = 1) -> Datasets:
    """Build the backbone and open the store of its features; nothing is computed yet."""
    backbone = build_backbone(config)
    return Datasets(prepared, backbone, FeatureStore(prepared, config, backbone, cache, workers))


def prepare_datasets(config: Config, cache: Path, workers: int = 1) -> Datasets:
    """Check what needs no photos, prepare the photos and show their counts, and open the store."""
    check_device()
    models.check_weights(config)
    models.check_fine_tune_from(config)
    prepared = prepare(config, cache)
    print(summary(prepared))
    if warning := validation_warning(prepared):
        print(warning)
    datasets = open_datasets(config, prepared, cache, workers)
    models.show_device(config, datasets.store.engine)
    return datasets


def head_data(config: Config, datasets: Datasets) -> HeadData:
    """Return the features that a head is trained on; missing ones are computed."""
    prepared, store = datasets.prepared, datasets.store
    arrays = training_arrays(config.augmented_copies)
    with stage("features"):
        store.make(arrays)
    *copies, validation = (store.features(*array) for array in arrays)
    train, held_out = (class_numbers(prepared, split) for split in ("train", "validation"))
    return HeadData(copies, train, validation, held_out, prepared.labels)


def head_datasets(config: Config, data: HeadData, first_epoch: int = 0) -> tuple[Any, Any]:
    """Return batches of features and one-hot labels for training, without end, and validation.

    Those for training come with weights of photos if classes have weights.

    Only the first `config.augmented_copies` copies of `data` are used.
    """
    copies, classes = data.copies[: config.augmented_copies + 1], len(data.labels)
    train = feature_batches(copies, data.classes, config.batch_size, config.seed, first_epoch)
    validation = feature_batches([data.validation], data.validation_classes, 1024)
    weights = class_weights(config, data.classes)
    return one_hot(train, classes, weights), one_hot(validation, classes)


def steps_per_epoch(config: Config, photos: int) -> int:
    """Return the number of batches in an epoch."""
    return math.ceil(photos / config.batch_size)


class FusedAdam(keras.optimizers.Adam):
    """Adam with one operation of TensorFlow for each variable, in place of a dozen of Keras.

    The formula is the same (Kingma and Ba 2015, the form before section 2.1). Updating its weights
    takes half of a step of a head: so an epoch takes 0.7 of the time.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable, and its two moments."""
        if keras.backend.backend() != "tensorflow":
            return super().update_step(gradient, variable, learning_rate)
        tf = tensorflow()
        number = self._get_variable_index(variable)
        iterations: Any = self.iterations
        step = tf.cast(iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[number].value.handle,
            v=self._velocities[number].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
        return None


def build_compiled_head(config: Config, classes: int, photos: int) -> Any:
    """Return a compiled head for a number of classes and of training photos.

    It is initialised from `config.seed`; the fields that decide `head` are used.
    """
    keras.utils.set_random_seed(config.seed)
    head = build_head(config, classes)
    steps = steps_per_epoch(config, photos)
    averaged = config.ema_epochs * steps
    momentum = max(1 - 1 / averaged, 0.0) if averaged else 0.0
    average: Any = {"use_ema": momentum > 0, "ema_momentum": momentum}
    optimizer = FusedAdam(config.learning_rate, **average)
    # A whole epoch in one call: a step is so short that calling it costs as much as doing it.
    compile_model(head, optimizer, config, steps_per_execution=steps)
    return head


class BalancedAccuracy(keras.metrics.Metric):
    """The mean recall of the classes with photos: scikit-learn's `balanced_accuracy_score`."""

    def __init__(self, classes: int) -> None:
        super().__init__(name="balanced_accuracy")
        self._photos, self._correct = (
            self.add_variable((classes,), "zeros", name=name) for name in ("photos", "correct")
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count photos: rows of 0 and 1, and of logits or probabilities, `(batch, classes)`."""
        ops = keras.ops
        if sample_weight is not None:
            y_true = y_true * ops.expand_dims(sample_weight, -1)
        predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), y_pred.shape[-1], dtype=self.dtype)
        self._photos.assign_add(ops.sum(y_true, axis=0))
        self._correct.assign_add(ops.sum(y_true * predicted, axis=0))

    def result(self) -> Any:
        """Return the mean recall."""
        ops = keras.ops
        recalls = ops.divide_no_nan(self._correct, self._photos)
        present = ops.cast(ops.greater(self._photos, 0), self.dtype)
        return ops.divide_no_nan(ops.sum(recalls), ops.sum(present))


def compile_model(
    model: keras.Model,
    optimizer: Any,
    config: Config,
    steps_per_execution: int = 1,
    metrics: Sequence[Any] = (),
) -> None:
    """Compile a model that returns logits; the state of its optimizer is built, too.

    `metrics` are Keras metrics of logits, in addition to the accuracy and to the objective.
    """
    smoothing = config.label_smoothing
    if config.objective == "balanced_accuracy":
        metrics = [*metrics, BalancedAccuracy(model.output_shape[-1])]
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
        weighted_metrics=["accuracy", *metrics],
        steps_per_execution=1 if keras.backend.backend() == "torch" else steps_per_execution,
    )
    optimizer.build(model.trainable_variables)  # So that its state can be saved and loaded.


def fit_head(
    config: Config,
    data: HeadData,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    build: Callable[..., Any] = build_compiled_head,
) -> TrainedHead:
    """Train a head until its validation loss stops falling; keep its best epoch.

    `build` returns the same as `build_compiled_head`, perhaps without compiling again.

    Raises:
        InputError: If the loss is not a number.
    """
    model = build(config, len(data.labels), len(data.classes))
    train, validation = head_datasets(config, data)
    recorder = Recorder()
    stopping = keras.callbacks.EarlyStopping(
        MONITOR, patience=config.patience, restore_best_weights=True
    )
    listeners: list[Any] = [stopping, recorder, *callbacks]
    if model.optimizer.use_ema:  # First: the others see the model with averaged weights.
        listeners.insert(0, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    options: dict[str, Any] = {
        "steps_per_epoch": steps_per_epoch(config, len(data.classes)),
        "epochs": config.epochs,
        "shuffle": False,  # The batches are shuffled already.
        "verbose": 0,
    }
    model.fit(train, validation_data=validation, callbacks=listeners, **options)
    trained = _trained(config, len(data.labels), model.get_weights(), recorder.history)
    best = trained.best
    if not math.isfinite(best[MONITOR]):
        raise InputError(
            f"Training diverged: the loss is {best[MONITOR]} after epoch {best['epoch']}. "
            f"Try a smaller `--learning-rate` than {config.learning_rate:g}."
        )
    return trained


@stage("head")
def train_head(
    config: Config,
    datasets: Datasets,
    cache: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainedHead:
    """Train a head (see `fit_head`), or return the one that was trained before, from the cache.

    Missing features are computed. Callbacks see the epochs of an earlier training, too.
    """
    place = head_file(config, datasets, cache)
    found = place.exists()

    def make(unfinished: Path) -> None:
        trained = fit_head(config, head_data(config, datasets), callbacks)
        write_state(unfinished, trained.head.get_weights(), trained.history)

    weights, history = read_state(made_once(place, make))
    trained = _trained(config, len(datasets.prepared.labels), weights, history)
    if found:
        print(f"found a head trained before: {len(history)} epochs", flush=True)
        show_epochs(history, trained.head, callbacks)
    return trained


def head_file(config: Config, datasets: Datasets, cache: Path) -> Path:
    """Return where a trained head is kept."""
    return cache / "heads" / f"{head_key(config, datasets)}.npz"


def head_key(config: Config, datasets: Datasets) -> str:
    """Return the key of all that decides a trained head."""
    return fingerprint(
        fields=deciding(config, "head"),
        features=[datasets.store.key(*one) for one in training_arrays(config.augmented_copies)],
        labels=labels_key(datasets.prepared),
        versions=versions(),
        layout=_LAYOUT,
    )


def labels_key(prepared: Prepared) -> str:
    """Return the key of the classes and of the class of each photo to train and validate on."""
    numbers = [class_numbers(prepared, split).tolist() for split in ("train", "validation")]
    return fingerprint(labels=prepared.labels, numbers=numbers)


def _trained(
    config: Config, classes: int, weights: Sequence[np.ndarray], history: History
) -> TrainedHead:
    head = build_head(config, classes)  # Another one: what is saved needs no optimizer.
    head.set_weights(weights)
    return TrainedHead(head, history, min(history, key=lambda row: row[MONITOR]))


class Recorder(keras.callbacks.Callback):
    """Records a row for each epoch in `history`, after those of earlier epochs."""

    def __init__(self, history: Iterable[dict[str, float]] = ()) -> None:
        super().__init__()
        self.history: History = list(history)
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Record the epoch."""
        known = {name: float(logs[name]) for name in _METRICS if logs and name in logs}
        row = {"epoch": epoch + 1} | known
        self.history.append(row | {"seconds": round(time.monotonic() - self._start, 3)})


def show_epochs(
    history: History, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]
) -> None:
    """Let callbacks see the epochs of an earlier training, as if `fit` of the model made them."""
    listeners: Any = keras.callbacks.CallbackList(list(callbacks), model=model)
    listeners.on_train_begin()
    for row in history:
        epoch = int(row["epoch"]) - 1
        listeners.on_epoch_begin(epoch)
        listeners.on_epoch_end(epoch, {name: row[name] for name in _METRICS if name in row})
    listeners.on_train_end()


def state_of(model: Any) -> list[np.ndarray]:
    """Return all that decides how training goes on: weights, optimizer and random generators."""
    generator = torch_generator()
    others = [generator.get_rng_state().numpy()] if generator else []
    return [array(one) for one in _variables(model)] + others


def restore(model: Any, state: Iterable[np.ndarray]) -> None:
    """Bring a compiled model to a state of one like it."""
    variables, values = _variables(model), list(state)
    for variable, value in zip(variables, values[: len(variables)], strict=True):
        variable.assign(value)
    if generator := torch_generator():
        generator.set_rng_state(generator.get_rng_state().new_tensor(values[-1]))


def _variables(model: Any) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def write_state(file: Path, arrays: Sequence[np.ndarray], history: History) -> None:
    """Write weights, or a state, and the history of a training to an `.npz` file."""
    numbered = {str(number): array for number, array in enumerate(arrays)}
    np.savez(file, history=np.array(json.dumps(history)), **numbered)  # type: ignore[arg-type]


def read_state(file: Path) -> tuple[list[np.ndarray], History]:
    """Return what `write_state` wrote."""
    with np.load(file) as content:
        arrays = [content[str(number)] for number in range(len(content.files) - 1)]
        return arrays, json.loads(str(content["history"]))


def write_rows(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Write rows with the same keys as CSV."""
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
