"""The facts that a saved file tells of its training: data, weights, scores, licences."""

import hashlib
from pathlib import Path

from fashion_keras.backbone import BACKBONE
from fashion_keras.config import Config
from fashion_keras.data.prepare import Prepared
from fashion_keras.data.scan import SPLITS
from fashion_keras.describe import NOT_STATED
from fashion_keras.inspection import read_card

_DATA = {
    "clothing": ("clothing-dataset-small", "CC0-1.0"),
    "sample": ("drawn sample", "MIT"),
}


def facts_of(
    config: Config, prepared: Prepared, validation: dict[str, float], data_licence: str = ""
) -> dict:
    """Return what is known of a classifier before its test.

    Args:
        config: What it was trained with.
        prepared: What it was trained on. Of a user's folder only the name is told, not the path.
        validation: Its scores on the validation split.
        data_licence: Licence of the photos, as the user states it; known for `clothing` and
            `sample`.

    Returns:
        Facts for the card (see `inspection.read_card`).
    """
    name, licence = _DATA.get(config.data, (Path(config.data).expanduser().resolve().name, ""))
    counts = {split: len(prepared.split(split)) for split in SPLITS}
    return {
        "backbone": BACKBONE,
        "data": {
            "name": name,
            "fingerprint": fingerprint(prepared),
            "photos": {split: count for split, count in counts.items() if count},
        },
        "validation": validation,
        "licences": {
            "data": data_licence or licence or NOT_STATED,
            "weights": _weights_licence(config.weights),
        },
    }


def fingerprint(prepared: Prepared) -> str:
    """Return the SHA-256 over split, label and bytes of every photo: the same for the same data."""
    digest = hashlib.sha256()
    for line in sorted(f"{one.split}\t{one.label}\t{one.sha256}\n" for one in prepared.photos):
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _weights_licence(weights: str) -> str:
    """Return the licence of the weights that the backbone began from."""
    if weights == "imagenet":
        return "MIT (Keras Applications; trained on ImageNet)"
    if weights == "none":
        return "none: trained from random weights"
    if weights.endswith(".keras"):
        return read_card(Path(weights).expanduser()).get("licences", {}).get("weights", NOT_STATED)
    return NOT_STATED
