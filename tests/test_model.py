"""Tests of the layers: augmentation, backbone, head, classifier and trainer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from fashion_keras.artifact import save_classifier
from fashion_keras.config import Config, InputError
from fashion_keras.model import (
    BACKBONE,
    VECTOR_SIZE,
    build_augmentation,
    build_backbone,
    build_classifier,
    build_head,
    build_trainer,
    build_vector_model,
    check_weights,
)


def noise(photos: int, height: int, width: int) -> np.ndarray:
    """Return photos of noise."""
    shape = (photos, height, width, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype="uint8")


def normalised_backbone() -> keras.Model:
    """Return a small backbone with batch normalisation, not frozen."""
    keras.utils.set_random_seed(1)
    pixels = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(4, 5, strides=16)(pixels)
    maps = keras.layers.BatchNormalization()(maps)
    return keras.Model(pixels, keras.layers.Conv2D(VECTOR_SIZE, 1)(maps), name=BACKBONE)


@pytest.fixture
def bfloat16() -> Iterator[None]:
    """Set a policy of half precision for one test."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_augmentation_changes_each_photo_in_its_own_way() -> None:
    photo = noise(1, 64, 64).astype("float32")
    views = np.asarray(build_augmentation(Config(), 1)(np.repeat(photo, 4, axis=0), training=True))
    assert len({view.tobytes() for view in [*views, photo[0]]}) == 5


def test_augmentation_follows_its_seed() -> None:
    photos = noise(4, 64, 64).astype("float32")
    first, same, other = (
        np.asarray(build_augmentation(Config(), seed)(photos, training=True)) for seed in (1, 1, 4)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).mean() > 1


def test_augmentation_without_turn_and_zoom_only_mirrors() -> None:
    photos = noise(8, 64, 64).astype("float32")
    views = build_augmentation(Config(rotation=0, zoom=0), 1)(photos, training=True)
    mirrored = [not np.allclose(*pair, atol=0.01) for pair in zip(views, photos, strict=True)]
    assert 0 < sum(mirrored) < 8
    for view, photo, turned in zip(views, photos, mirrored, strict=True):
        np.testing.assert_allclose(view, photo[:, ::-1] if turned else photo, atol=0.01)


def test_augmentation_works_in_float32_under_a_half_precision_policy(bfloat16: None) -> None:
    photos = noise(2, 64, 64).astype("float32")
    views = np.asarray(build_augmentation(Config(rotation=0, zoom=0), 1)(photos, training=True))
    assert views.dtype == "float32"
    assert sorted(views.ravel().round()) == sorted(photos.ravel())


def test_classifier_holds_no_random_layer_and_repeats_itself(tiny_backbone: keras.Model) -> None:
    classifier = build_classifier(tiny_backbone, build_head(Config(droprate=0), 3), 71)
    pixels = noise(2, 71, 71)
    asked_to_train = np.asarray(classifier(pixels, training=True))
    np.testing.assert_array_equal(asked_to_train, classifier(pixels))
    names = {type(layer).__name__ for layer in classifier._flatten_layers()}
    assert not [name for name in names if "Random" in name]


@pytest.mark.parametrize(
    ("inner_size", "names", "numbers"),
    [
        (0, ["vector", "dropout", "logits"], VECTOR_SIZE * 3 + 3),
        (5, ["vector", "inner", "dropout", "logits"], VECTOR_SIZE * 5 + 5 + 5 * 3 + 3),
    ],
)
def test_head_has_an_inner_layer_only_if_it_has_a_size(
    inner_size: int, names: list[str], numbers: int
) -> None:
    head = build_head(Config(inner_size=inner_size, droprate=0.3), classes=3)
    assert [layer.name for layer in head.layers] == names
    assert head.count_params() == numbers
    assert head.get_layer("dropout").rate == 0.3


def test_classifier_takes_whole_and_broken_numbers_alike(tiny_backbone: keras.Model) -> None:
    classifier = build_classifier(tiny_backbone, build_head(Config(), 3), 71)
    pixels = noise(2, 50, 90)
    np.testing.assert_array_equal(classifier(pixels), classifier(pixels.astype("float32")))


@pytest.mark.parametrize(("height", "width"), [(71, 71), (50, 90), (300, 20), (1, 1)])
def test_classifier_takes_any_size_and_gives_probabilities(
    tiny_backbone: keras.Model, height: int, width: int
) -> None:
    classifier = build_classifier(tiny_backbone, build_head(Config(), 3), 71)
    probabilities = np.asarray(classifier(noise(4, height, width)))
    assert (probabilities.shape, probabilities.dtype) == ((4, 3), "float32")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert (probabilities >= 0).all()


def test_classifier_is_resize_scale_backbone_mean_head_softmax(tiny_backbone: keras.Model) -> None:
    head, pixels = build_head(Config(), 3), noise(2, 50, 90)
    resized = keras.layers.Resizing(71, 71, interpolation="bilinear")(pixels.astype("float32"))
    maps = np.asarray(tiny_backbone(np.asarray(resized) / 127.5 - 1))
    powers = np.exp(np.asarray(head(maps.mean(axis=(1, 2)))))
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(build_classifier(tiny_backbone, head, 71)(pixels), expected, 1e-4)


def test_vector_model_scales_to_minus_one_and_one_and_takes_the_mean() -> None:
    pixels = keras.Input((None, None, 3))
    backbone = keras.Model(pixels, keras.layers.Activation("linear")(pixels))
    photos = np.zeros((1, 2, 2, 3))
    photos[0, 0, 0] = [255, 127.5, 0]
    np.testing.assert_allclose(build_vector_model(backbone)(photos), [[-0.5, -0.75, -1]], 1e-6)


def test_classifier_gives_float32_under_a_half_precision_policy(
    bfloat16: None, tiny_backbone: keras.Model
) -> None:
    head = build_head(Config(inner_size=4), 3)
    probabilities = np.asarray(build_classifier(tiny_backbone, head, 71)(noise(4, 71, 71)))
    assert (head.get_layer("inner").compute_dtype, probabilities.dtype) == ("bfloat16", "float32")
    assert build_vector_model(tiny_backbone)(noise(1, 71, 71)).dtype == "float32"
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_imagenet_backbone_is_frozen_and_gives_maps(real_weights: Path) -> None:
    backbone = build_backbone(str(real_weights))
    assert (backbone.trainable_weights, backbone.name) == ([], BACKBONE)
    assert backbone(np.zeros((1, 71, 71, 3))).shape == (1, 3, 3, VECTOR_SIZE)


def test_random_backbone_is_trained() -> None:
    backbone = build_backbone("none")
    # Each of the 40 batch normalisations has two numbers a channel that are never trained.
    assert len(backbone.trainable_weights) == len(backbone.weights) - 2 * 40


def test_missing_weights_file_names_what_is_taken(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No weights file .*gone\.h5\. .* takes `imagenet`, "):
        build_backbone(str(tmp_path / "gone.h5"))


def write_other_h5(file: Path) -> None:
    with h5py.File(file, "w") as content:
        content["numbers"] = [1, 2, 3]


def write_text(file: Path) -> None:
    file.write_text("<html>404 not found</html>")


def write_other_model(file: Path) -> None:
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(file)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("other.weights.h5", write_other_h5),
        ("other.h5", write_other_h5),
        ("text.h5", write_text),
        ("text.keras", write_text),
        ("other.keras", write_other_model),
    ],
)
def test_weights_file_of_another_sort_is_refused(
    name: str, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each file is refused by Keras' own reader; a small model only saves building Xception.
    monkeypatch.setattr("keras.applications.Xception", small_xception)
    write(tmp_path / name)
    with pytest.raises(InputError, match=f"{name} does not hold the weights of an Xception"):
        build_backbone(str(tmp_path / name))


def small_xception(weights: str | None, **options: Any) -> keras.Model:
    backbone = normalised_backbone()
    backbone.set_weights([weight * 0 for weight in backbone.get_weights()])
    if weights:
        backbone.load_weights(weights)
    return backbone


def test_xception_itself_refuses_weights_of_another_sort(tmp_path: Path) -> None:
    write_other_h5(tmp_path / "other.weights.h5")
    with pytest.raises(InputError, match="does not hold the weights of an Xception"):
        build_backbone(str(tmp_path / "other.weights.h5"))


def test_saved_classifier_gives_back_its_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.applications.Xception", small_xception)
    original = normalised_backbone()
    save_classifier(original, build_head(Config(), 2), ["a", "b"], 71, tmp_path / "our.keras")
    backbone = build_backbone(str(tmp_path / "our.keras"))
    assert backbone.trainable_weights == []
    for weight, expected in zip(backbone.get_weights(), original.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def failing_with(message: str) -> Any:
    def fail(**options: Any) -> None:
        raise Exception(message)  # Keras itself raises a bare one.

    return fail


def test_failed_download_names_the_address_and_both_ways_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = "URL fetch failure on https://weights.example/x.h5: None -- timed out"
    monkeypatch.setattr("keras.applications.Xception", failing_with(message))
    advice = r"https://weights\.example/x\.h5.*`--weights FILE`, .*`--weights none`"
    with pytest.raises(InputError, match=advice):
        build_backbone("imagenet")


def test_other_failures_are_not_called_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras.applications.Xception", failing_with("out of memory"))
    with pytest.raises(Exception, match="^out of memory$"):
        build_backbone("imagenet")


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_statistics_move_only_in_a_backbone_that_is_trained(frozen: bool) -> None:
    backbone = normalised_backbone()
    before = np.concatenate([[np.zeros(4)], [np.ones(4)]])
    backbone.trainable = not frozen
    trainer = build_trainer(Config(image_size=71, views=0), backbone, build_head(Config(), 2))
    trainer.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    trainer.train_on_batch(noise(4, 71, 71), np.array([0, 1, 0, 1]))
    layer: Any = backbone.layers[2]
    after = np.stack([layer.moving_mean, layer.moving_variance])
    assert (after == before).all() == frozen


@pytest.mark.parametrize("views", [0, 1])
def test_trainer_augments_only_if_views_are_asked_for(
    views: int, tiny_backbone: keras.Model
) -> None:
    head = build_head(Config(droprate=0), 2)
    trainer = build_trainer(Config(image_size=71, views=views), tiny_backbone, head)
    pixels = noise(2, 71, 71)
    first, second = (np.asarray(trainer(pixels, training=True)) for _ in range(2))
    assert np.array_equal(first, second) == (views == 0)


def test_trainer_and_classifier_share_weights_and_agree(tiny_backbone: keras.Model) -> None:
    head = build_head(Config(), 3)
    trainer = build_trainer(Config(image_size=71), tiny_backbone, head)
    classifier = build_classifier(tiny_backbone, head, 71)
    head.set_weights([weight + 0.01 for weight in head.get_weights()])
    logits = trainer(noise(2, 71, 71), training=False)
    np.testing.assert_allclose(classifier(noise(2, 71, 71)), keras.ops.softmax(logits), atol=1e-6)


@pytest.mark.parametrize("failure", [ConnectionResetError("reset"), TimeoutError("timed out")])
def test_download_that_breaks_off_names_the_address(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise failure

    monkeypatch.setattr("keras.applications.Xception", fail)
    with pytest.raises(InputError, match=r"storage\.googleapis\.com/.*`--weights FILE`"):
        build_backbone("imagenet")


def test_a_copy_of_the_weights_can_be_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASHION_KERAS_WEIGHTS", str(tmp_path / "copy.h5"))
    with pytest.raises(InputError, match=r"No weights file .*copy\.h5.*correct it"):
        check_weights("imagenet")
    (tmp_path / "copy.h5").write_text("x")
    with pytest.raises(InputError, match="does not hold the weights of an Xception"):
        build_backbone("imagenet")
