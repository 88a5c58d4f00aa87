"""Several heads that act as one."""

import dataclasses
import io
import zipfile

import h5py
import keras
import numpy as np
import pytest

from fashion_keras.config import Config
from fashion_keras.ensemble import train_ensemble
from fashion_keras.features import FeatureStore
from fashion_keras.model import average_heads, build_head
from fashion_keras.saving import save_classifier
from fashion_keras.training import Material, train

CONFIG = Config(image_size=71, batch_size=8, inner_size=8, epochs=2, learning_rate=0.01, heads=2)


@pytest.fixture
def material(prepared, tiny_backbone, tmp_path):
    return Material(
        prepared, tiny_backbone, FeatureStore(prepared, CONFIG, tiny_backbone, tmp_path)
    )


def test_the_mean_of_heads_is_the_mean_of_their_logits():
    heads = [build_head(Config(inner_size=4), 3) for _ in range(3)]
    vectors = np.random.default_rng(1).normal(size=(5, 2048)).astype("float32")
    expected = np.mean([head.predict_on_batch(vectors) for head in heads], axis=0)
    whole = average_heads(heads).predict_on_batch(vectors)
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-5)


def test_heads_differ_by_their_seeds_and_each_is_in_the_history(material):
    ensemble = train_ensemble(CONFIG, material)
    members = [train(dataclasses.replace(CONFIG, seed=seed), material) for seed in (1, 2)]
    vectors = np.array(material.store.vectors("validation"))
    outputs = [member.parts.head.predict_on_batch(vectors) for member in members]
    whole = ensemble.head.predict_on_batch(vectors)
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    np.testing.assert_allclose(whole, np.mean(outputs, axis=0), rtol=1e-4, atol=1e-5)
    assert [(row["stage"], row["epoch"]) for row in ensemble.history] == [
        ("head 1", 1),
        ("head 1", 2),
        ("head 2", 1),
        ("head 2", 2),
    ]


def test_one_head_is_what_training_gives(material):
    ensemble = train_ensemble(dataclasses.replace(CONFIG, heads=1), material)
    best = train(CONFIG, material).best
    assert ensemble.validation["accuracy"] == pytest.approx(best["val_accuracy"])
    assert ensemble.validation["loss"] == pytest.approx(best["val_loss"], rel=1e-5)


def test_a_backbone_that_is_trained_too_has_one_head(prepared, tiny_backbone, monkeypatch, capsys):
    tiny_backbone.trainable = True
    monkeypatch.setattr("fashion_keras.training.build_backbone", lambda weights: tiny_backbone)
    before = [weight.copy() for weight in tiny_backbone.get_weights()]
    config = dataclasses.replace(CONFIG, weights="none")
    ensemble = train_ensemble(config, Material(prepared, None, None))
    assert {row["stage"] for row in ensemble.history} == {"head 1"}
    assert "so there is one head" in capsys.readouterr().out
    assert ensemble.backbone is tiny_backbone
    assert any(
        (old != new).any() for old, new in zip(before, tiny_backbone.get_weights(), strict=True)
    )


def test_an_average_has_the_layers_of_all_heads():
    head = average_heads([build_head(Config(inner_size=4), 3) for _ in range(2)])
    assert isinstance(head, keras.Model)
    assert {layer.name for layer in head.layers} >= {"head_1", "head_2", "mean_logits"}


@pytest.mark.parametrize("heads", [1, 2])
def test_no_optimizer_gets_into_the_saved_file(heads, material, tmp_path):
    ensemble = train_ensemble(dataclasses.replace(CONFIG, heads=heads), material)
    labels = material.prepared.labels
    save_classifier(ensemble.backbone, ensemble.head, labels, 71, tmp_path / "our.keras")
    with zipfile.ZipFile(tmp_path / "our.keras") as archive:
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
            stored: list[str] = []
            weights.visit(stored.append)
    assert stored
    assert not [name for name in stored if "optimizer" in name and "vars/" in name]
