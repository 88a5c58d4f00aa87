"""Train, test and use a classifier of clothing photos with Keras.

Importing the package is quick: Keras is imported when a classifier is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fashion_keras.classifier import Classifier, Prediction, load_classifier

__version__ = "0.1.0"
__all__ = ["Classifier", "Prediction", "load_classifier"]


def __getattr__(name: str) -> Any:  # See PEP 562.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fashion_keras import classifier

    return getattr(classifier, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
