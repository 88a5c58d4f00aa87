"""Tests of the models: weights of the backbone, augmentation, head, classifier and what trains."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fashion_keras import model as models
from fashion_keras.backend import Card, keras
from fashion_keras.config import Config, InputError
from fashion_keras.model import (
    build_augmentation,
    build_backbone,
    build_classifier,
    build_feature_model,
    build_head,
    build_top,
    build_trainer,
    check_fine_tune_from,
    check_weights,
    copied,
    input_of,
    precision_in_force,
    unfreeze,
)
from fashion_keras.saving import save_classifier
from tests.builders import noise
from tests.conftest import BACKBONE, FEATURES, normalised_backbone, small_backbone


@pytest.fixture
def bfloat16() -> Iterator[None]:
    """Set a policy of half precision for one test."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture
def small_xception(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small model stand in for Xception, which takes seconds to build."""

    def build(weights: str | None, **options: Any) -> keras.Model:
        backbone = normalised_backbone()
        backbone.set_weights([weight * 0 for weight in backbone.get_weights()])
        if weights:
            backbone.load_weights(weights)
        return backbone

    monkeypatch.setattr("keras.applications.Xception", build)


@pytest.mark.slow
def test_imagenet_backbone_is_frozen_and_gives_feature_maps(real_weights: Path) -> None:
    backbone = build_backbone(Config(weights=str(real_weights)))
    assert (backbone.trainable_weights, backbone.name) == ([], BACKBONE)
    assert backbone(np.zeros((1, 71, 71, 3))).shape == (1, 3, 3, FEATURES)


@pytest.fixture
def branched(monkeypatch: pytest.MonkeyPatch) -> keras.Model:
    """Return a model in Xception's place: two branches between single layers."""
    pixels = keras.Input((None, None, 3))
    stem = keras.layers.Conv2D(4, 3, name="stem_conv")(pixels)
    long = keras.layers.Conv2D(4, 1, name="long_conv")(stem)
    long = keras.layers.ReLU(name="long_relu")(long)
    both = keras.layers.Conv2D(4, 1)(stem) + long
    top = keras.layers.Conv2D(4, 1, name="top_conv")(both)
    model = keras.Model(pixels, top)
    monkeypatch.setattr("keras.applications.Xception", lambda **_: model)
    return model


def test_a_backbone_is_cut_where_all_passes_through_one_tensor(branched: keras.Model) -> None:
    names = ("long", "long_conv", "long_relu", "top")
    stem, both = branched.get_layer("stem_conv").output, branched.get_layer("top_conv").input
    assert [input_of(branched, name) for name in names] == [stem, stem, stem, both]
    for name in ("stem", "", "conv2d", "add", "other"):
        assert input_of(branched, name) is None


def test_a_place_to_cut_is_checked_and_others_are_named(branched: keras.Model) -> None:
    for name in ("auto", "pixels", "block2", "long_relu"):
        check_fine_tune_from(Config(fine_tune_from=name))
    message = "beginning of the name of a layer of xception, such as block2, .*'stem'"
    with pytest.raises(InputError, match=message):
        check_fine_tune_from(Config(fine_tune_from="stem"))
    with pytest.raises(InputError, match="needs a block to start from"):
        check_fine_tune_from(Config(fine_tune_from="pixels", fine_tune_on="feature_maps"))


def test_a_copy_of_other_weights_is_refused_with_its_variable(tmp_path, monkeypatch, recwarn):
    copy = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save_weights(copy)
    monkeypatch.setenv("FASHION_KERAS_WEIGHTS", str(copy))
    with pytest.raises(InputError, match=r"h5 \(named by \$FASHION_KERAS_WEIGHTS\) does not hold"):
        models.build_backbone(Config())
    assert not [one for one in recwarn.list if "Skipping" in str(one.message)]


@pytest.mark.parametrize(
    "name", ["other.weights.h5", "other.h5", "text.h5", "text.keras", "o.keras"]
)
def test_weights_file_of_another_kind_is_refused(name, tmp_path, small_xception):
    file = tmp_path / name
    if name.startswith("text"):
        file.write_text("<html>404 not found</html>")
    elif file.suffix == ".keras":
        # Right weights, but without the metadata that the new file takes over.
        build_classifier(normalised_backbone(), build_head(Config(), 2), 71).save(file)
    else:
        with h5py.File(file, "w") as content:
            content["numbers"] = [1, 2, 3]
    with pytest.raises(
        InputError, match=f"{name}.* (does not hold the weights of Xception|is not|holds no)"
    ):
        build_backbone(Config(weights=str(file)))


@pytest.mark.parametrize("weights", ["released", "our.keras"])
def test_weights_of_another_backbone_are_refused_at_once(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_classifier(
        normalised_backbone(), build_head(Config(), 2), ["a", "b"], 71, Path("our.keras")
    )
    message = rf"is 'xception'\. .*Received: --backbone resnet50v2 --weights {weights}"
    with pytest.raises(InputError, match=message):
        check_weights(Config(backbone="resnet50v2", weights=weights))


def test_missing_weights_file_names_what_is_taken(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"No weights file .*gone\.h5\. .* takes `imagenet`, "):
        check_weights(Config(weights=str(tmp_path / "gone.h5")))
    monkeypatch.setenv("FASHION_KERAS_WEIGHTS", str(tmp_path / "copy.h5"))
    with pytest.raises(InputError, match=r"No weights file .*copy\.h5\. Correct \$FASHION_KERAS_"):
        check_weights(Config())
    (tmp_path / "copy.h5").touch()
    assert check_weights(Config()) == tmp_path / "copy.h5"


def test_saved_classifier_gives_its_backbone(tmp_path: Path, small_xception: None) -> None:
    original = normalised_backbone()
    save_classifier(original, build_head(Config(), 2), ["a", "b"], 71, tmp_path / "our.keras")
    backbone = build_backbone(Config(weights=str(tmp_path / "our.keras")))
    assert backbone.trainable_weights == []
    for weight, expected in zip(backbone.get_weights(), original.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.slow
def test_released_model_gives_its_backbone() -> None:
    backbone = build_backbone(Config(weights="released"))
    assert (backbone.name, len(backbone.layers)) == (BACKBONE, 132)


def test_failed_download_says_where_from_and_what_else_to_give(monkeypatch):
    def fail(**_: object) -> None:
        raise Exception("URL fetch failure on https://weights.example/x.h5: None -- timed out")

    monkeypatch.setattr("keras.applications.Xception", fail)
    advice = r"Xception: .*weights\.example/.*`--weights FILE`.*`--weights released`"
    with pytest.raises(InputError, match=advice):
        build_backbone(Config())


def test_batch_normalisation_stays_frozen() -> None:
    backbone = normalised_backbone()
    backbone.trainable = False
    unfreeze(backbone)
    assert len(backbone.trainable_weights) == 4  # Kernels and biases of two layers.


def test_augmentation_changes_each_photo_in_its_own_way_and_follows_its_seed() -> None:
    photos = np.repeat(noise(1, 64, 64), 4, axis=0).astype("float32")
    first, same, other = (
        np.asarray(build_augmentation(Config(), seed)(photos, training=True)) for seed in (1, 1, 4)
    )
    assert len({copy.tobytes() for copy in [*first, photos[0]]}) == 5
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).mean() > 1


def test_without_mirroring_only_the_layers_that_turn_and_zoom_are_left() -> None:
    names = [layer.name for layer in build_augmentation(Config(mirror=False), 1).layers]
    assert [name.rsplit("_", 1)[0] for name in names if "flip" in name] == []
    assert len(names) == 2


def test_augmentation_without_rotation_and_zoom_only_flips_in_float32(bfloat16: None) -> None:
    photos = noise(8, 64, 64).astype("float32")
    copies = np.asarray(build_augmentation(Config(rotation=0, zoom=0), 1)(photos, training=True))
    assert copies.dtype == "float32"
    flipped = [not np.allclose(*pair, atol=0.01) for pair in zip(copies, photos, strict=True)]
    assert 0 < sum(flipped) < 8
    for copy, photo, turned in zip(copies, photos, flipped, strict=True):
        np.testing.assert_allclose(copy, photo[:, ::-1] if turned else photo, atol=0.01)


def test_head_has_an_inner_layer_only_if_it_has_a_size() -> None:
    head = build_head(Config(inner_size=5, droprate=0.3), classes=3)
    assert [layer.name for layer in head.layers] == ["features", "inner", "dropout", "logits"]
    assert head.count_params() == FEATURES * 5 + 5 + 5 * 3 + 3
    assert head.get_layer("dropout").rate == 0.3
    head = build_head(Config(inner_size=0), classes=3)
    assert [layer.name for layer in head.layers] == ["features", "dropout", "logits"]


@pytest.mark.parametrize(("height", "width"), [(71, 71), (50, 90), (300, 20), (1, 1)])
def test_classifier_takes_any_size_and_type_and_gives_probabilities(tiny_backbone, height, width):
    classifier = build_classifier(tiny_backbone, build_head(Config(), 3), 71)
    pixels = noise(4, height, width)
    probabilities = np.asarray(classifier(pixels))
    assert (probabilities.shape, probabilities.dtype) == ((4, 3), "float32")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert (probabilities >= 0).all()
    np.testing.assert_array_equal(probabilities, classifier(pixels.astype("float32")))


def test_classifier_is_resize_scale_backbone_mean_head_softmax(tiny_backbone: keras.Model) -> None:
    head, pixels = build_head(Config(), 3), noise(2, 50, 90)
    resized = keras.layers.Resizing(71, 71, interpolation="bilinear")(pixels.astype("float32"))
    maps = np.asarray(tiny_backbone(np.asarray(resized) / 127.5 - 1))
    powers = np.exp(np.asarray(head(maps.mean(axis=(1, 2)))))
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(build_classifier(tiny_backbone, head, 71)(pixels), expected, 1e-4)


def test_classifier_gives_float32_under_a_half_precision_policy(bfloat16, tiny_backbone):
    head = build_head(Config(inner_size=4), 3)
    probabilities = np.asarray(build_classifier(tiny_backbone, head, 71)(noise(4, 71, 71)))
    assert (head.get_layer("inner").compute_dtype, probabilities.dtype) == ("bfloat16", "float32")
    assert build_feature_model(tiny_backbone)(noise(1, 71, 71))["features"].dtype == "float32"
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_feature_model_scales_to_minus_one_and_one_and_takes_the_mean() -> None:
    pixels = keras.Input((None, None, 3))
    backbone = keras.Model(pixels, keras.layers.Activation("linear")(pixels), name=BACKBONE)
    photos = np.zeros((1, 2, 2, 3))
    photos[0, 0, 0] = [255, 127.5, 0]
    features = build_feature_model(backbone)(photos)["features"]
    np.testing.assert_allclose(features, [[-0.5, -0.75, -1]], 1e-6)


def test_a_backbone_cut_in_two_gives_what_the_whole_gives(tiny_backbone: keras.Model) -> None:
    head, pixels = build_head(Config(droprate=0), 3), noise(2, 71, 71)
    both = build_feature_model(tiny_backbone, "block13")(pixels)
    whole = build_feature_model(tiny_backbone)(pixels)
    np.testing.assert_array_equal(both["features"], whole["features"])
    logits = build_top(tiny_backbone, head, "block13")(both["feature_maps"])
    np.testing.assert_allclose(logits, head(whole["features"]), atol=1e-5)


@pytest.mark.parametrize("seed", [None, 1])
def test_trainer_shares_weights_with_the_classifier_and_alone_augments_with_a_seed(
    seed, tiny_backbone
):
    head, pixels = build_head(Config(droprate=0), 3), noise(2, 71, 71)
    trainer = build_trainer(Config(image_size=71), tiny_backbone, head, seed)
    classifier = build_classifier(tiny_backbone, head, 71)
    head.set_weights([weight + 0.01 for weight in head.get_weights()])
    probabilities = keras.ops.softmax(trainer(pixels, training=False))
    np.testing.assert_allclose(classifier(pixels), np.asarray(probabilities), atol=1e-6)
    first, second = (np.asarray(trainer(pixels, training=True)) for _ in range(2))
    assert np.array_equal(first, second) == (seed is None)
    first, second = (np.asarray(classifier(pixels, training=True)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_copy_computes_in_its_precision_with_weights_in_float32() -> None:
    backbone = small_backbone()
    copy = copied(backbone, "mixed_bfloat16")
    pixels = np.random.default_rng(1).uniform(-1, 1, (2, 71, 71, 3)).astype("float32")
    found: Any = keras.ops.convert_to_numpy(copy(pixels))
    assert (found.dtype, copy.name) == ("bfloat16", BACKBONE)
    expected: Any = keras.ops.convert_to_numpy(backbone(pixels))
    np.testing.assert_allclose(found.astype("float32"), expected, atol=0.02)
    assert {weight.dtype for weight in copy.weights} == {"float32"}
    for one, other in zip(copy.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("wanted", "backend", "cpu", "cards", "expected"),
    [
        ("auto", "tensorflow", True, [], "mixed_bfloat16"),
        ("auto", "tensorflow", False, [], "float32"),
        ("auto", "torch", True, [], "float32"),
        ("auto", "jax", False, [Card("A100", (8, 0))], "mixed_bfloat16"),
        ("auto", "tensorflow", True, [Card("A100", (8, 0)), Card("T4", (7, 5))], "float32"),
        ("float32", "tensorflow", True, [], "float32"),
        ("float32", "tensorflow", True, [Card("A100", (8, 0))], "float32"),
        ("mixed_bfloat16", "tensorflow", True, [], "mixed_bfloat16"),
        ("mixed_bfloat16", "tensorflow", False, [], "float32"),
        ("mixed_bfloat16", "jax", True, [], "float32"),
        ("mixed_float16", "tensorflow", True, [], "float32"),
        ("mixed_float16", "torch", False, [Card("T4")], "mixed_float16"),
    ],
)
def test_precision_is_used_where_it_is_faster(
    wanted, backend, cpu, cards, expected, monkeypatch, capsys
):
    monkeypatch.setattr("keras.backend.backend", lambda: backend)
    monkeypatch.setattr(models, "cpu_multiplies_bfloat16", lambda: cpu)
    monkeypatch.setattr(models, "cards", lambda: cards)
    assert precision_in_force.__wrapped__(wanted) == expected
    line = f"{wanted} would be no faster on this CPU: computing in float32\n"
    assert capsys.readouterr().out == ("" if wanted in (expected, "auto") else line)
