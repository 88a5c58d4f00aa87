"""Tests of the layers: augmentation, head, classifier and trainer."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from fashion_keras.backbone import VECTOR_SIZE
from fashion_keras.config import Config
from fashion_keras.model import (
    build_augmentation,
    build_classifier,
    build_feature_model,
    build_head,
    build_top,
    build_trainer,
    draw_on,
)
from tests.conftest import normalised_backbone


def noise(photos: int, height: int, width: int) -> np.ndarray:
    """Return photos of noise."""
    shape = (photos, height, width, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype="uint8")


@pytest.fixture
def bfloat16() -> Iterator[None]:
    """Set a policy of half precision for one test."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_augmentation_changes_each_photo_in_its_own_way() -> None:
    photo = noise(1, 64, 64).astype("float32")
    augmented_copies = np.asarray(
        build_augmentation(Config(), 1)(np.repeat(photo, 4, axis=0), training=True)
    )
    assert len({view.tobytes() for view in [*augmented_copies, photo[0]]}) == 5


def test_augmentation_follows_its_seed() -> None:
    photos = noise(4, 64, 64).astype("float32")
    first, same, other = (
        np.asarray(build_augmentation(Config(), seed)(photos, training=True)) for seed in (1, 1, 4)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).mean() > 1


def test_augmentation_draws_on_as_if_it_had_made_the_batches_before() -> None:
    photos = noise(4, 64, 64).astype("float32")
    whole, later = (build_augmentation(Config(), 7) for _ in range(2))
    made = [np.asarray(whole(photos, training=True)) for _ in range(4)]
    draw_on(later, 2)
    for expected in made[2:]:
        np.testing.assert_array_equal(later(photos, training=True), expected)


def test_augmentation_without_turn_and_zoom_only_mirrors() -> None:
    photos = noise(8, 64, 64).astype("float32")
    augmented_copies = build_augmentation(Config(rotation=0, zoom=0), 1)(photos, training=True)
    mirrored = [
        not np.allclose(*pair, atol=0.01) for pair in zip(augmented_copies, photos, strict=True)
    ]
    assert 0 < sum(mirrored) < 8
    for view, photo, turned in zip(augmented_copies, photos, mirrored, strict=True):
        np.testing.assert_allclose(view, photo[:, ::-1] if turned else photo, atol=0.01)


def test_augmentation_works_in_float32_under_a_half_precision_policy(bfloat16: None) -> None:
    photos = noise(2, 64, 64).astype("float32")
    augmented_copies = np.asarray(
        build_augmentation(Config(rotation=0, zoom=0), 1)(photos, training=True)
    )
    assert augmented_copies.dtype == "float32"
    assert sorted(augmented_copies.ravel().round()) == sorted(photos.ravel())


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
    np.testing.assert_allclose(
        build_feature_model(backbone)(photos)["vectors"], [[-0.5, -0.75, -1]], 1e-6
    )


def test_classifier_gives_float32_under_a_half_precision_policy(
    bfloat16: None, tiny_backbone: keras.Model
) -> None:
    head = build_head(Config(inner_size=4), 3)
    probabilities = np.asarray(build_classifier(tiny_backbone, head, 71)(noise(4, 71, 71)))
    assert (head.get_layer("inner").compute_dtype, probabilities.dtype) == ("bfloat16", "float32")
    assert build_feature_model(tiny_backbone)(noise(1, 71, 71))["vectors"].dtype == "float32"
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_statistics_move_only_in_a_backbone_that_is_trained(frozen: bool) -> None:
    backbone = normalised_backbone()
    before = np.concatenate([[np.zeros(VECTOR_SIZE)], [np.ones(VECTOR_SIZE)]])
    backbone.trainable = not frozen
    trainer = build_trainer(
        Config(image_size=71, augmented_copies=0), backbone, build_head(Config(), 2)
    )
    trainer.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    trainer.train_on_batch(noise(4, 71, 71), np.array([0, 1, 0, 1]))
    layer: Any = backbone.layers[3]
    after = np.stack([layer.moving_mean, layer.moving_variance])
    assert (after == before).all() == frozen


@pytest.mark.parametrize("augmented_copies", [0, 1])
def test_trainer_augments_only_if_views_are_asked_for(
    augmented_copies: int, tiny_backbone: keras.Model
) -> None:
    head = build_head(Config(droprate=0), 2)
    trainer = build_trainer(
        Config(image_size=71, augmented_copies=augmented_copies), tiny_backbone, head
    )
    pixels = noise(2, 71, 71)
    first, second = (np.asarray(trainer(pixels, training=True)) for _ in range(2))
    assert np.array_equal(first, second) == (augmented_copies == 0)


def test_trainer_and_classifier_share_weights_and_agree(tiny_backbone: keras.Model) -> None:
    head = build_head(Config(), 3)
    trainer = build_trainer(Config(image_size=71), tiny_backbone, head)
    classifier = build_classifier(tiny_backbone, head, 71)
    head.set_weights([weight + 0.01 for weight in head.get_weights()])
    logits = trainer(noise(2, 71, 71), training=False)
    probabilities = np.asarray(keras.ops.softmax(logits))
    np.testing.assert_allclose(classifier(noise(2, 71, 71)), probabilities, atol=1e-6)


def test_a_backbone_cut_in_two_gives_what_the_whole_gives(tiny_backbone: keras.Model) -> None:
    head, pixels = build_head(Config(droprate=0), 3), noise(2, 71, 71)
    features = build_feature_model(tiny_backbone, "block13")(pixels)
    whole = build_feature_model(tiny_backbone)(pixels)
    np.testing.assert_array_equal(features["vectors"], whole["vectors"])
    logits = build_top(tiny_backbone, head, "block13")(features["maps"])
    np.testing.assert_allclose(logits, head(whole["vectors"]), atol=1e-5)
