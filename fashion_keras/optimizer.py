"""What models are compiled with: Adam, for whole batches or their parts, loss and metric."""

from collections.abc import Sequence
from typing import Any

import keras

from fashion_keras.config import Config


class PartwiseAdam(keras.optimizers.Adam):
    """Adam that makes one step for the mean gradient of several parts of a batch.

    Keras' own `gradient_accumulation_steps` fails under `MirroredStrategy` (it reduces gradients
    inside a condition), and lets schedules count parts instead of steps.

    Args:
        learning_rate: A number or a schedule.
        parts: Parts of a batch.
        options: Those of `keras.optimizers.Adam`.
    """

    def __init__(self, learning_rate: Any, parts: int, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self._parts = parts

    def build(self, var_list: Sequence[Any]) -> None:
        """Make the state, and room for the sum of gradients."""
        super().build(var_list)
        sums = [keras.Variable("zeros", shape=one.shape, trainable=False) for one in var_list]
        # A function: what an attribute holds would be saved, and is nothing between two batches.
        self._sum = sums.__getitem__

    @property
    def iterations(self) -> Any:
        """Return the number of steps made."""
        return self._iterations // self._parts

    def _get_current_learning_rate(self) -> Any:
        rate = self._learning_rate
        return rate(self.iterations) if callable(rate) else rate

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Add the gradient to the sum; with that of the last part, make the step."""
        total = self._sum(self._get_variable_index(variable))
        step = super().update_step

        def make() -> None:
            step((total + gradient) / self._parts, variable, learning_rate)
            self.assign(total, keras.ops.zeros_like(total))

        last = (self._iterations + 1) % self._parts == 0
        keras.ops.cond(last, make, lambda: self.assign_add(total, gradient))


def adam(learning_rate: Any, parts: int = 1, **options: Any) -> Any:
    """Return Adam for batches that come in so many parts (see `PartwiseAdam`)."""
    if parts > 1:
        return PartwiseAdam(learning_rate, parts, **options)
    return keras.optimizers.Adam(learning_rate, **options)


def average_momentum(config: Config, steps: float) -> float:
    """Return how much of the moving average of weights each step keeps.

    Args:
        config: `ema_epochs` is used.
        steps: Batches in an epoch.

    Returns:
        In [0, 1); 0 for no average.
    """
    return max(1 - 1 / (config.ema_epochs * steps), 0.0) if config.ema_epochs else 0.0


def compile_model(
    model: keras.Model,
    config: Config,
    steps_per_execution: int = 1,
    ema_momentum: float = 0.0,
    parts: int = 1,
) -> None:
    """Give a model that returns logits its optimizer, loss and metric.

    Args:
        model: The model.
        config: `learning_rate` and `label_smoothing` are used.
        steps_per_execution: Steps in one call of TensorFlow.
        ema_momentum: How much of the moving average of weights each step keeps; 0 for none.
        parts: In which each batch comes (see `devices.shared`).
    """
    average: dict[str, Any] = {"use_ema": ema_momentum > 0, "ema_momentum": ema_momentum}
    model.compile(
        optimizer=adam(config.learning_rate, parts, **average),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        ),
        weighted_metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    # So that weights saved with Adam's state can be loaded with it: Hyperband promotes a trial by
    # loading its weights into a new model, and training would start with a jolt.
    optimizer: Any = model.optimizer
    optimizer.build(model.trainable_variables)
