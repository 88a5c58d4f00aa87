"""Names that moved to `features`."""

from fashion_keras.features import Features  # noqa: F401
