"""Fixtures shared by all tests: drawn photos, a tiny backbone, and the real photos and weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fashion_keras.backbones import ARCHITECTURES
from fashion_keras.config import Config
from fashion_keras.data.prepare import Prepared, prepare
from fashion_keras.data.sample import draw_sample
from fashion_keras.parallel import connected

if TYPE_CHECKING:  # The process that hands out the tests needs no Keras.
    from fashion_keras.backend import keras

BACKBONE = "xception"
FEATURES = ARCHITECTURES[BACKBONE].features

# The commands read some of these, too; tests start without them and ask for them by name.
VARIABLES = ("FASHION_KERAS_DATA", "FASHION_KERAS_WEIGHTS", "FASHION_KERAS_CACHE")
ENVIRONMENT = {name: os.environ.get(name) for name in VARIABLES}

# Each process takes the next file when it is done with one: these take longest and come first, or
# all others would wait for the last of them in the end.
LONGEST = (
    "test_kills",
    "test_keys",
    "test_final",
    "test_ray_data",
    "test_backends",
    "test_workers",
    "test_fine_tuning",
    "test_training",
    "test_export",
    "test_search",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that take longest first; the others keep their order."""
    items.sort(key=lambda item: [*LONGEST, item.path.stem].index(item.path.stem))


@pytest.fixture(scope="session", autouse=True)
def without_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Take them out in the process that runs tests; that which starts it has to hand them on."""
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.environ["FASHION_KERAS_CACHE"] = str(tmp_path_factory.mktemp("default"))


@pytest.fixture(scope="session", autouse=True)
def in_float32() -> Iterator[None]:
    """Let tests compute the same on every kind of CPU; bfloat16 makes small models slower, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fashion_keras.model.cpu_multiplies_bfloat16", lambda: False)
        yield


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Let each test draw the same random numbers, whatever ran before it."""
    from fashion_keras.backend import keras

    keras.utils.set_random_seed(1)


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw 80 photos: 4 for training, 2 for validation and 2 for testing of each class."""
    folder = tmp_path_factory.mktemp("drawn") / "sample"
    return draw_sample(folder, {"train": 4, "validation": 2, "test": 2})


@pytest.fixture(scope="session")
def prepared(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Prepare the drawn photos."""
    return prepare(Config(data=str(sample_folder)), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder where features and the like stay from test to test of a file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Run Ray on this machine once for all tests of a file."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_worker_niceness", "0")  # Else other tests at the same time slow it down.
        with connected(num_cpus=2) as running:
            yield running


@pytest.fixture
def tiny_backbone() -> keras.Model:
    """Build a frozen backbone with the shape of Xception's output but hardly any work in it."""
    from fashion_keras.backend import keras

    keras.utils.set_random_seed(1)
    pixels = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(FEATURES, 5, strides=16, activation="relu")(pixels)
    # The only block: it changes nothing until it is trained.
    block = keras.layers.DepthwiseConv2D(1, depthwise_initializer="ones", name="block13_conv")
    maps = block(maps)
    backbone = keras.Model(pixels, maps, name=BACKBONE)
    backbone.trainable = False
    return backbone


def normalised_backbone() -> keras.Model:
    """Return a small backbone, not frozen, with a block that ends in batch normalisation."""
    from fashion_keras.backend import keras

    keras.utils.set_random_seed(1)
    pixels = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(4, 5, strides=16)(pixels)
    maps = keras.layers.Conv2D(FEATURES, 1, name="block13_conv")(maps)
    maps = keras.layers.BatchNormalization(name="block13_bn")(maps)
    return keras.Model(pixels, maps, name=BACKBONE)


def small_backbone(name: str = BACKBONE) -> keras.Model:
    """Return a small frozen backbone with a block of separable convolutions, as Xception has."""
    from fashion_keras.backend import keras

    keras.utils.set_random_seed(1)
    pixels = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(32, 5, strides=8, activation="relu")(pixels)
    maps = keras.layers.SeparableConv2D(64, 3, name="block13_sepconv")(maps)
    maps = keras.layers.BatchNormalization(name="block13_bn")(maps)
    features = ARCHITECTURES[name].features
    maps = keras.layers.Conv2D(features, 1, activation="relu")(maps)
    backbone = keras.Model(pixels, maps, name=name)
    backbone.trainable = False
    return backbone


@pytest.fixture
def engine_asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Return the list of photos, side and cache for which classifiers ask for an engine."""
    asked: list[tuple] = []
    record: Any = lambda model, *arguments: asked.append(arguments)  # noqa: E731
    monkeypatch.setattr("fashion_keras.engine.for_classifier", record)
    return asked


def _from_environment(variable: str) -> Path:
    value = ENVIRONMENT[variable]
    if not value:
        pytest.skip(f"set {variable} to run this test on the real thing")
    path = Path(value).resolve()
    assert path.exists(), f"{variable} is set to {value}, which does not exist"
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of clothing-dataset-small."""
    return _from_environment("FASHION_KERAS_DATA")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Return the file with the ImageNet weights of Xception without its top."""
    return _from_environment("FASHION_KERAS_WEIGHTS")
