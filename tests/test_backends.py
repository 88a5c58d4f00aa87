"""Tests of the program that loads a saved file elsewhere, and of training under other backends.

They run where variables name backends, separated by commas, such as `jax,torch@oldest`:
`FASHION_KERAS_BACKENDS` those that load the released file, `FASHION_KERAS_TRAINING` those that
train. With `@oldest` it is the oldest version of Keras that reads the file.
"""

import json
import os
import site
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from fashion_keras.config import Config
from fashion_keras.model import build_head
from fashion_keras.saving import RELEASED, load_model, save_classifier
from tests.backends import __main__ as program
from tests.backends import environments, inside
from tests.backends.environments import BACKENDS
from tests.conftest import ENVIRONMENT

VARIABLE, TRAINING = "FASHION_KERAS_BACKENDS", "FASHION_KERAS_TRAINING"
CHOSEN, TRAINED = (
    {name.strip() for name in os.environ.get(variable, "").split(",")} - {""}
    for variable in (VARIABLE, TRAINING)
)
POSSIBLE = [f"{backend}{age}" for age in ("", "@oldest") for backend in BACKENDS]


def borrow(backend: str, keras_version: str, folder: Path) -> Path:
    """Stand in for `environments.make`: borrow the packages of this environment."""
    place = folder / backend
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (packages,) = [*place.glob("lib/*/site-packages"), *place.glob("Lib/site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.mark.slow
@pytest.mark.skipif(bool(CHOSEN), reason="the backends that are named prove more")
def test_program_proves_a_file_in_another_environment(
    tiny_backbone, sample_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(environments, "make", borrow)
    model = tmp_path / "our.keras"
    save_classifier(tiny_backbone, build_head(Config(inner_size=0), 2), ["hat", "tie"], 71, model)
    files = ["--environments", str(tmp_path), "--results", str(tmp_path / "backends.json")]
    program.main([str(model), "--photos", str(sample_folder), *files, "--only", "tensorflow"])
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith(f"| tensorflow | {version('keras')} | ")
    assert row.endswith("| right |")
    assert json.loads((tmp_path / "backends.json").read_text())["rows"][0]["called"] <= 1e-6


def environments_folder(folder: Path) -> Path:
    """Return where environments are made, and found again: below the cache, if there is one."""
    cache = ENVIRONMENT["FASHION_KERAS_CACHE"]
    return Path(cache) / "environments" if cache else folder.parent / "environments"


@pytest.mark.parametrize(("variable", "given"), [(VARIABLE, CHOSEN), (TRAINING, TRAINED)])
def test_names_of_backends_are_known(variable, given) -> None:
    assert set(POSSIBLE) >= given, f"expected some of {', '.join(POSSIBLE)} in {variable}"


@pytest.fixture(scope="session")
def base(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Return the decoded real photos, and what TensorFlow finds here."""
    photos = tmp_path_factory.mktemp("photos")
    program.write_photos(real_data / "validation", photos, 3)  # Each size takes seconds.
    model, _ = load_model(RELEASED)
    called = inside.call(model, [np.load(photo) for photo in sorted(photos.glob("*.npy"))])
    return photos, {"probabilities": {"called": called}}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_everything_trains_under_another_backend(backend, tmp_path):
    """JAX on two devices and without TensorFlow; packages but the backend's are those from here."""
    (chosen,) = [one for one in TRAINED if one.startswith(backend)] or [None]
    if not chosen:
        pytest.skip(f"name {backend} in {TRAINING} to train there")
    keras_version = program.OLDEST if chosen.endswith("@oldest") else version("keras")
    python = environments.make(backend, keras_version, environments_folder(tmp_path))
    here = os.pathsep.join([str(Path(__file__).parents[1]), *site.getsitepackages()])
    # Programs of seconds need not be the fastest.
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    variables = {"KERAS_BACKEND": backend, "PYTHONPATH": here, "XLA_FLAGS": flags}
    variables |= {"OMP_NUM_THREADS": "1"}  # More of Torch's threads wait for each other.
    words = [str(python), "-m", "tests.backends.training", str(tmp_path / "trained")]
    words += ["without-tensorflow" if backend == "jax" else "pixels"]
    done = subprocess.run(
        words, env=os.environ | variables, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["device"].startswith({"jax": "JAX ", "torch": "PyTorch "}[backend])
    assert ("working on 2 devices" in done.stdout) == (backend == "jax")
    promoted, whole = found["trial"]
    # Its state is complete; Torch draws other dropout for a model that was compiled just now.
    assert promoted == pytest.approx(whole, rel=1e-4 if backend == "jax" else 0.05)
    losses = {
        name: [row["loss"] for row in found.get(name, [])]
        for name in ("head", "block13", "pixels", "one card")
    }
    assert losses["head"][-1] < losses["head"][0]
    assert losses["block13"][-1] < losses["block13"][0]
    if backend == "jax":
        assert losses["block13"] == pytest.approx(losses["one card"], rel=0.02)
    else:
        assert max(losses["pixels"]) < 2.5
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in found["predicted"])
    assert (len(found["predicted"]), len(found["heat"])) == (10, 2)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("chosen", POSSIBLE)
def test_released_file_gives_the_same_elsewhere(
    chosen: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if chosen not in CHOSEN:
        pytest.skip(f"name {chosen} in {VARIABLE} to load the released file there")
    backend, _, age = chosen.partition("@")
    keras_version = program.OLDEST if age else version("keras")
    photos, expected = request.getfixturevalue("base")
    folder = environments_folder(tmp_path)
    row = program.check(backend, keras_version, RELEASED, photos, folder, expected)
    assert not row["problems"], f"{backend}, Keras {keras_version}: {'; '.join(row['problems'])}"
