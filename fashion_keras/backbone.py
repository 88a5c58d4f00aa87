"""Names that moved to `model`."""

from fashion_keras.model import (  # noqa: F401
    BACKBONE,
    build_backbone,
    check_weights,
    patient_download,
)
from fashion_keras.model import FEATURES as VECTOR_SIZE  # noqa: F401
