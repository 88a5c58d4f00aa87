"""Finds hyperparameters for `fashion_keras`; the two meet in `results/search/best_config.json`."""

# Before Keras Tuner, which imports TensorFlow: this import hides TensorFlow's start-up messages.
import fashion_keras  # noqa: F401
