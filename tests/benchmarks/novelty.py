"""How well photos of other things are told from photos of the classes, by several measures.

Known garments are the photos for validation; other things are drawn textures and all pictures in
the folders given. Unknown garments are those of a class that was left out, each class in turn, on
features of the frozen backbone: no network has been trained on them. `auroc` is the share of pairs
in which the other photo is farther, `accepted` the share of others below the distance that 95 % of
known garments stay below.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fashion_keras import cli
from fashion_keras.classifier import Classifier, distances, load_classifier, unit_vectors
from fashion_keras.config import RELEASED, Config
from fashion_keras.data.files import find_files
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.evaluate import Labelled, labelled, predict_photos
from fashion_keras.novelty import class_means, threshold
from fashion_keras.training import Datasets, open_datasets
from tests.benchmarks.common import parser, provenance, write

FIELDS = ("data", "weights", "image_size")
_TEXTURES = 60
_TRAINED_ON = 600  # Photos for training that distances are measured to, at most.

Measure = Callable[[np.ndarray], np.ndarray]  # Features and, before them, probabilities.


def draw_textures(folder: Path) -> None:
    """Draw noise, stripes, circles and gradients in random colours."""
    dice, (rows, columns) = np.random.default_rng(1), np.mgrid[:300, :300] / 300
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(_TEXTURES):
        turn, steps = dice.uniform(0, np.pi), dice.uniform(2, 40)
        along = rows * np.sin(turn) + columns * np.cos(turn)
        around = np.hypot(rows - 0.5, columns - 0.5)
        waves = (dice.random((300, 300)), along, np.sin(along * steps), np.sin(around * steps))
        wave = waves[number % len(waves)]
        share = (wave - wave.min()) / np.ptp(wave)
        colours = dice.uniform(0, 255, (2, 3))
        pixels = colours[0] + share[..., None] * (colours[1] - colours[0])
        Image.fromarray(pixels.astype("uint8")).save(folder / f"{number}.png")


def measures(features: np.ndarray, numbers: np.ndarray, classes: int) -> dict[str, Measure]:
    """Return distances to photos that were trained on, by name; see `Measure`."""
    means, known = class_means(features, numbers, classes), unit_vectors(features)
    return {
        "nearest class mean": lambda photos: distances(photos, means),
        "nearest photo": lambda photos: 1 - (unit_vectors(photos) @ known.T).max(axis=1),
        "all photos' mean": lambda photos: distances(photos, unit_vectors(known.mean(0)[None])),
    }


def compared(own: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Return `auroc` and `accepted` of distances."""
    is_other = np.repeat([0, 1], [len(own), len(others)])
    accepted = (others <= threshold(own, np.empty(0))).mean()
    auroc = roc_auc_score(is_other, np.concatenate([own, others]))
    return {"auroc": round(float(auroc), 4), "accepted": round(float(accepted), 4)}


def rows_of(classifier: Classifier, photos: Sequence[Labelled], doing: str) -> np.ndarray:
    """Return probabilities and features of photos, side by side."""
    found, _ = predict_photos(classifier, photos, doing)
    return np.stack([np.concatenate([one.probabilities, one.features]) for _, one in found])


def other_things(model: Path, prepared: Prepared, folders: Sequence[Path]) -> dict[str, Any]:
    """Compare a saved file's measures on the pictures of each folder."""
    classifier = load_classifier(model)
    classes = len(prepared.labels)
    train = labelled(prepared, "train")
    train = train[:: -(-len(train) // _TRAINED_ON)]
    groups = {"train": train, "validation": labelled(prepared, "validation")}
    for folder in folders:
        groups[folder.name] = [Labelled(file, file.name, "") for file in find_files(folder)]
    rows = {name: rows_of(classifier, photos, name) for name, photos in groups.items()}
    numbers = np.array([prepared.labels.index(photo.label) for photo in train])
    found: dict[str, Measure] = {
        name: lambda row, measure=measure: measure(row[:, classes:])
        for name, measure in measures(rows["train"][:, classes:], numbers, classes).items()
    }
    found["1 - largest probability"] = lambda row: 1 - row[:, :classes].max(axis=1)
    found["generalised entropy"] = lambda row: _entropy(row[:, :classes])
    return {
        folder.name: {"photos": len(rows[folder.name])}
        | {
            name: compared(measure(rows["validation"]), measure(rows[folder.name]))
            for name, measure in found.items()
        }
        for folder in folders
    }


def unknown_garments(datasets: Datasets) -> dict[str, Any]:
    """Leave out each class in turn; return the means over all of them."""
    prepared, rows, numbers = datasets.prepared, {}, {}
    for split in ("train", "validation"):
        rows[split] = np.asarray(datasets.store.features(split))
        labels = [prepared.labels.index(photo.label) for photo in prepared.split(split)]
        numbers[split] = np.array(labels)
    found: dict[str, list[dict[str, float]]] = {}
    for left_out in range(len(prepared.labels)):
        kept = numbers["train"] != left_out
        left = np.unique(numbers["train"][kept], return_inverse=True)[1]
        used = measures(rows["train"][kept], left, len(prepared.labels) - 1)
        head = LogisticRegression(max_iter=300).fit(20 * unit_vectors(rows["train"][kept]), left)
        used["1 - largest probability"] = partial(_unsure, head)
        for name, measure in used.items():
            far, new = measure(rows["validation"]), numbers["validation"] == left_out
            found.setdefault(name, []).append(compared(far[~new], far[new]))
    return {
        name: {key: round(float(np.mean([row[key] for row in each])), 4) for key in each[0]}
        for name, each in found.items()
    }


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the generalised entropy of Liu et al. 2023, "GEN"."""
    return ((probabilities * (1 - probabilities)) ** 0.1).sum(axis=1)


def _unsure(head: LogisticRegression, features: np.ndarray) -> np.ndarray:
    return 1 - head.predict_proba(20 * unit_vectors(features)).max(axis=1)


def main() -> None:
    """Measure, and write `benchmarks/novelty.json`."""
    options = parser("novelty", __doc__, FIELDS)
    options.add_argument("--model", type=Path, default=RELEASED, help="a .keras file")
    options.add_argument("others", type=Path, nargs="*", help="folders of pictures of other things")
    given = options.parse_args()
    config = cli.chosen(given, Config())
    draw_textures(textures := given.cache / "textures")
    prepared = prepare(config, given.cache)
    found = {
        "other_things": other_things(given.model, prepared, [textures, *given.others]),
        "unknown_garments": unknown_garments(open_datasets(config, prepared, given.cache)),
        "run": provenance(),
    }
    print(write(given.results, "novelty", found))


if __name__ == "__main__":
    cli.run(main)
