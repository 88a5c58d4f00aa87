"""Proves that a saved file gives the same probabilities wherever Keras runs.

`python -m tests.backends --help` tells how. The modules: `photos` chooses and decodes, `labels`
and `inside` are copied into each environment's own folder and run there, `environments` makes the
environments and runs things in them, `judge` decides, `table` writes.
"""

# Before anything imports Keras: this import hides TensorFlow's start-up messages.
import fashion_keras  # noqa: F401
