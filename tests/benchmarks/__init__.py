"""Programs that measure; each writes `results/benchmarks/<name>.json`. Not run by pytest."""

# Before the benchmarks import Keras: this import hides TensorFlow's start-up messages.
import fashion_keras  # noqa: F401
