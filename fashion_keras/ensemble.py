"""Trains several heads over one backbone and makes one of them."""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import keras

from fashion_keras.config import Config, InputError
from fashion_keras.model import average_heads, build_head
from fashion_keras.optimizer import compile_model
from fashion_keras.stopwatch import stage
from fashion_keras.training import (
    Material,
    Trained,
    Watch,
    train,
    training_batches,
    training_key,
    unwatched,
)


class Ensemble(NamedTuple):
    """Several heads over one backbone that act as one.

    Attributes:
        backbone: The backbone.
        head: Gives the mean of the logits of all heads.
        history: One row an epoch with its stage: `head 1`, `head 2`, ..., `fine-tuning`.
        validation: `loss` (with smoothed labels) and `accuracy` of the whole on validation.
    """

    backbone: keras.Model
    head: keras.Model
    history: list[dict[str, Any]]
    validation: dict[str, float]


@stage("heads")
def train_ensemble(
    config: Config, material: Material, watch: Watch = unwatched, cache: Path | None = None
) -> Ensemble:
    """Train `config.heads` heads with seeds that count up from `config.seed`, and average them.

    Without a frozen backbone to share there is one head, trained together with its backbone.

    Args:
        config: All knobs.
        material: See `training.open_material`.
        watch: Looks on while they are trained.
        cache: Folder for the state of each head (see `training.train`); None to keep none.

    Raises:
        InputError: If the loss of a head is not a number.
    """
    count = config.heads
    if material.backbone is None:
        print("the backbone is trained too, so there is one head")
        count = 1
    members = []
    for number in range(count):
        seeded = dataclasses.replace(config, seed=config.seed + number)
        file = cache and _state_file(seeded, material, cache)
        member = train(seeded, material, watch(f"head {number + 1}"), file)
        _check_converged(member, config)
        members.append(member)
    head = _joined(members, config, len(material.prepared.labels))
    history = [
        {"stage": f"head {number}"} | row
        for number, member in enumerate(members, start=1)
        for row in member.history
    ]
    backbone = members[0].parts.backbone
    if material.backbone is None:
        return Ensemble(backbone, head, history, _metrics(members[0].best))
    return Ensemble(backbone, head, history, _measure(head, config, material))


# What does not decide how one head is trained: the keys of its vectors tell where they came from.
_NO_MATTER = {"data", "weights", "heads", "fine_tune_from", "precision"}


def _state_file(config: Config, material: Material, cache: Path) -> Path:
    """Return where the state of exactly this head is kept."""
    knobs = dataclasses.asdict(config)
    counting = {
        name: knobs[name]
        for name in knobs.keys() - _NO_MATTER
        if not name.startswith("fine_tuning_")
    }
    features = [material.prepared.folder.name]  # Of a backbone that is trained from nothing.
    if material.store:
        augmented_copies = [("train", view) for view in range(config.augmented_copies + 1)]
        features = [material.store.key(*which) for which in [*augmented_copies, ("validation", 0)]]
    key = training_key(counting, features, material.prepared)
    return cache / "heads-1" / f"{key}.weights.h5"


def _joined(members: list[Trained], config: Config, classes: int) -> keras.Model:
    """Return one head with the weights of all, without the optimizers they were trained with."""
    heads = []
    for member in members:
        heads.append(build_head(config, classes))
        heads[-1].set_weights(member.parts.head.get_weights())
    return average_heads(heads) if len(heads) > 1 else heads[0]


def _metrics(best: dict[str, float]) -> dict[str, float]:
    return {"loss": best["val_loss"], "accuracy": best["val_accuracy"]}


def _measure(head: keras.Model, config: Config, material: Material) -> dict[str, float]:
    """Return loss and accuracy of a head on the vectors of validation."""
    probe = keras.Model(head.inputs, head.outputs)  # `head` itself is saved: no optimizer for it.
    compile_model(probe, config)
    _, validation = training_batches(config, material)
    measured: Any = probe.evaluate(validation, return_dict=True, verbose="0")
    return {name: measured[name] for name in ("loss", "accuracy")}


def _check_converged(trained: Trained, config: Config) -> None:
    best = trained.best
    if not math.isfinite(best["val_loss"]):
        raise InputError(
            f"Training diverged: the loss is {best['val_loss']} after epoch {best['epoch']:.0f}. "
            f"Try a smaller `--learning-rate` than {config.learning_rate:g}."
        )
