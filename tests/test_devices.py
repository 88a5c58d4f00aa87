"""Tests of devices and precision: what is in force, and that several devices change nothing."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fashion_keras import devices, fine_tuning
from fashion_keras.config import Config, InputError
from fashion_keras.data.prepare import Prepared
from fashion_keras.devices import copied, precision_in_force
from fashion_keras.ensemble import Ensemble
from fashion_keras.features import FeatureStore
from fashion_keras.fine_tuner import build_fine_tuner, compile_at
from fashion_keras.fine_tuning import fine_tune
from fashion_keras.model import build_head
from fashion_keras.training import Material
from tests.conftest import small_backbone
from tests.two_devices import compute

ROOT = Path(__file__).parent.parent
CONFIG = Config(
    image_size=71, batch_size=16, droprate=0.0, fine_tune_from="block13", fine_tuning_copies=0
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Return what sets the machine, which is asked once a process otherwise."""
    precision_in_force.cache_clear()
    yield monkeypatch
    precision_in_force.cache_clear()


@pytest.mark.parametrize(
    ("wanted", "flags", "cards", "expected"),
    [
        ("float32", ["amx_bf16"], ["gpu:0"], "float32"),
        ("mixed_bfloat16", ["avx512_bf16", "amx_bf16"], [], "mixed_bfloat16"),
        ("mixed_bfloat16", ["avx512_bf16"], [], "float32"),
        ("mixed_float16", ["avx512_fp16", "amx_bf16"], [], "float32"),
        ("mixed_float16", [], ["gpu:0"], "mixed_float16"),
        ("mixed_bfloat16", [], ["gpu:0"], "mixed_bfloat16"),
    ],
)
def test_precision_is_used_where_it_gains(
    wanted: str,
    flags: list[str],
    cards: list[str],
    expected: str,
    machine: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine.setattr(devices, "_cpu_flags", lambda: flags)
    machine.setattr(keras.distribution, "list_devices", lambda kind: cards)
    assert [precision_in_force(wanted) for _ in range(2)] == [expected] * 2
    line = f"{wanted} would be no faster on this CPU: computing in float32\n"
    assert capsys.readouterr().out == ("" if wanted == expected else line)


def force(precision: str, machine: pytest.MonkeyPatch) -> None:
    machine.setattr(keras.distribution, "list_devices", lambda kind: ["gpu:0"])
    assert precision_in_force(precision) == precision


def test_unknown_precision_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="one of float32, mixed_float16, mixed_bfloat16. Received"):
        Config(precision="float16")


def test_copy_computes_in_its_precision_with_weights_in_float32() -> None:
    backbone = small_backbone()
    copy = copied(backbone, "mixed_bfloat16")
    pixels = np.random.default_rng(1).uniform(-1, 1, (2, 71, 71, 3)).astype("float32")
    found: Any = keras.ops.convert_to_numpy(copy(pixels))
    assert found.dtype == "bfloat16"
    expected: Any = keras.ops.convert_to_numpy(backbone(pixels))
    np.testing.assert_allclose(found.astype("float32"), expected, atol=0.02)
    assert {weight.dtype for weight in copy.weights} == {"float32"}
    for one, other in zip(copy.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_vectors_of_another_precision_are_others(
    prepared: Prepared, tmp_path: Path, machine: pytest.MonkeyPatch
) -> None:
    force("mixed_bfloat16", machine)
    backbone = small_backbone()
    stores = [
        FeatureStore(prepared, dataclasses.replace(CONFIG, precision=one), backbone, tmp_path)
        for one in ("float32", "mixed_bfloat16")
    ]
    exact, near = (np.asarray(store.vectors("validation")) for store in stores)
    assert near.dtype == "float32"
    assert 1e-5 < np.abs(near - exact).max() < 0.02


def test_precision_that_is_not_in_force_changes_no_key(
    prepared: Prepared, tmp_path: Path, machine: pytest.MonkeyPatch
) -> None:
    machine.setattr(devices, "_cpu_flags", list)
    stores = [
        FeatureStore(
            prepared, dataclasses.replace(CONFIG, precision=one), small_backbone(), tmp_path
        )
        for one in ("float32", "mixed_float16")
    ]
    assert stores[0].key("train") == stores[1].key("train")
    states = {
        fine_tuning._state_file(
            dataclasses.replace(CONFIG, precision=one),
            Material(prepared, small_backbone(), stores[0]),
            tmp_path,
        )
        for one in ("float32", "mixed_float16")
    }
    assert len(states) == 1


def test_fine_tuning_in_half_precision_gives_float32_back(
    prepared: Prepared, tmp_path: Path, machine: pytest.MonkeyPatch
) -> None:
    losses = []
    for precision in ("float32", "mixed_float16"):
        force(precision, machine)
        config = dataclasses.replace(CONFIG, precision=precision, fine_tuning_epochs=1)
        backbone = small_backbone()
        store = FeatureStore(prepared, config, backbone, tmp_path)
        keras.utils.set_random_seed(3)
        start = Ensemble(backbone, build_head(config, 10), [], {})
        tuned = fine_tune(config, Material(prepared, backbone, store), start, tmp_path)
        assert {layer.compute_dtype for layer in tuned.backbone.layers} == {"float32"}
        losses.append(tuned.validation["loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_gradients_of_float16_are_scaled_and_their_scale_is_kept(
    prepared: Prepared, tmp_path: Path, machine: pytest.MonkeyPatch
) -> None:
    force("mixed_float16", machine)
    config = dataclasses.replace(CONFIG, precision="mixed_float16")
    backbone = small_backbone()
    material = Material(prepared, backbone, FeatureStore(prepared, config, backbone, tmp_path))
    models = [build_fine_tuner(config, material, build_head(config, 10)).model for _ in range(2)]
    for model in models:
        compile_at(0.001, model, config)
    first, second = (model.optimizer for model in models)
    assert isinstance(first, keras.optimizers.LossScaleOptimizer)
    first.dynamic_scale.assign(128.0)
    models[0].save_weights(tmp_path / "state.weights.h5")
    models[1].load_weights(tmp_path / "state.weights.h5")
    assert float(second.dynamic_scale) == 128


def test_two_devices_give_what_one_gives(sample_folder: Path, tmp_path: Path) -> None:
    # TensorFlow has to be told of the two before it starts, so they have a process of their own.
    words = [sys.executable, "-m", "tests.two_devices", "2", str(sample_folder), str(tmp_path)]
    told = subprocess.run([*words, "odd"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "working on 2 devices" in told.stdout
    two = dict(np.load(tmp_path / "devices-2.npz"))
    one = compute(sample_folder, tmp_path, 1, ["odd"])
    for name in ("vectors", "maps"):
        np.testing.assert_array_equal(one[name], two[name])
    # Batches of nine are filled up to ten, which shows in the mean loss of a pass alone.
    np.testing.assert_allclose(one["odd"][:, 1], two["odd"][:, 1], rtol=1e-4)
    np.testing.assert_allclose(one["odd"][:, 0], two["odd"][:, 0], rtol=1e-3)
