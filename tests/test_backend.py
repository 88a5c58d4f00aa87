"""Tests of the backend: how Keras starts, which device computes, and what is said of it."""

import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fashion_keras import backend, features, final
from fashion_keras.backend import Card, cards, check_device, device, keras, tensorflow
from fashion_keras.config import Config, InputError
from fashion_keras.model import show_device
from tests.builders import WITHOUT_KERAS, python
from tuning import search


@pytest.mark.parametrize(
    ("variables", "settings", "expected"),
    [
        ({"KERAS_BACKEND": "theano"}, "{}", "Unable to import backend : theano. Set the variable"),
        ({"KERAS_BACKEND": "jax"}, "{}", "import of jax halted; .* Set the variable"),
        ({}, '{"backend": "cntk"}', "backend : cntk. Set the variable KERAS_BACKEND to a backend"),
        ({}, '{"floatx": "float8"}', "floatx=float8. Set .* and correct /.*/keras.json, if"),
    ],
)
def test_keras_that_does_not_start_ends_in_one_line(variables, settings, expected, tmp_path):
    (tmp_path / "keras.json").write_text(settings)
    code = "import sys; sys.modules['jax'] = None; from fashion_keras import features, cli; "
    code += "cli.run(features.main)"
    words = ("-c", code, "--data", str(tmp_path))
    done = python(*words, KERAS_HOME=str(tmp_path), **variables)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line[:28]) == (2, "error: Keras does not start:")
    assert re.search(expected, line)


def test_without_keras_its_installation_is_advised():
    done = python(*WITHOUT_KERAS[1:], "fashion_keras.predict", "photo.jpg")
    assert (done.returncode, done.stdout) == (2, "")
    _, error = done.stderr.splitlines()  # The first says that the model is loaded.
    assert error.startswith("error: Keras is not installed: install all of fashion_keras")
    assert "take an .onnx file" in error


@pytest.fixture
def machine(monkeypatch):
    """Return a function that puts another backend, and the library behind it, in place."""

    def put(name, **library):
        cards.cache_clear()
        module = SimpleNamespace(__version__="3.4.5", **library)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(backend, "tensorflow", lambda: module)
        monkeypatch.setattr(keras.backend, "backend", lambda: name)

    for variable in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"):
        monkeypatch.delenv(variable, raising=False)
    yield put
    cards.cache_clear()


H100 = Card("H100", (9, 0))


def library_with(name: str, count: int) -> dict:
    """Return what a library says of so many cards."""
    if name == "tensorflow":
        details = {"device_name": "H100", "compute_capability": (9, 0)}
        experimental = SimpleNamespace(get_device_details=lambda _: details)
        found = SimpleNamespace(
            experimental=experimental, list_physical_devices=lambda _: ["gpu"] * count
        )
        return {"config": found}
    if name == "jax":
        card = SimpleNamespace(platform="gpu", device_kind="H100", compute_capability="9.0")
        processor = SimpleNamespace(platform="cpu", device_kind="cpu")
        return {"devices": lambda: [card] * count or [processor]}
    cuda = SimpleNamespace(
        device_count=lambda: count,
        get_device_name=lambda _: "H100",
        get_device_capability=lambda _: (9, 0),
    )
    mps = SimpleNamespace(is_available=lambda: False)
    return {"cuda": cuda, "backends": SimpleNamespace(mps=mps)}


@pytest.mark.parametrize("name", ["tensorflow", "jax", "torch"])
def test_device_is_named_and_a_card_that_is_not_used_is_warned_of(
    name, machine, monkeypatch, capsys
):
    spoken = backend.NAMES[name]
    machine(name, **library_with(name, 2))
    assert (cards(), device()) == ([H100] * 2, f"{spoken} 3.4 on 2 x H100")
    machine(name, **library_with(name, 0))
    assert (cards(), device()) == ([], f"{spoken} 3.4 on CPU, {os.cpu_count()} cores")
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    check_device()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/nvidia-smi")
    check_device()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"WARNING: there is an NVIDIA graphics card, but {spoken} does not see")
    assert line.endswith(backend.TRAIN[name])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # The user hides it.
    check_device()
    assert capsys.readouterr().err == ""


def test_backend_that_cannot_train_is_refused(machine):
    machine("openvino")
    with pytest.raises(InputError, match="backend openvino cannot train. Set .*, jax, torch"):
        check_device()


def test_other_backends_leave_the_cards_alone(monkeypatch):
    load, hidden = tensorflow.__wrapped__, []
    config = load().config
    monkeypatch.setattr(config, "set_visible_devices", lambda *words: hidden.append(words))
    load()
    assert hidden == []
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    load()
    assert hidden == [([], "GPU")]


def test_first_line_names_device_precision_and_engine(capsys):
    show_device(Config(), "openvino 2026.4")
    line = f"{device()}, float32; frozen passes: OpenVINO\n"
    assert capsys.readouterr().out == line
    show_device(Config(), "keras")
    assert capsys.readouterr().out == f"{device()}, float32\n"


FRESH = """
from fashion_keras.backend import enable_determinism, keras
from fashion_keras.model import versions
from tensorflow.python.framework.config import is_op_determinism_enabled
before = is_op_determinism_enabled(), versions()
enable_determinism()
print(before[0], is_op_determinism_enabled(), versions() != before[1])
c = keras.config
print(c.floatx(), c.epsilon(), c.image_data_format(), c.dtype_policy().name)
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Return what a process with the settings of other programs says of determinism and of them."""
    home = tmp_path_factory.mktemp("home")
    settings = '{"floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first"}'
    (home / "keras.json").write_text(settings)
    return python("-c", FRESH, KERAS_HOME=str(home)).stdout.splitlines()


@pytest.mark.slow
def test_settings_of_other_programs_are_overridden(fresh):
    assert fresh[1] == "float32 1e-07 channels_last float32"


@pytest.mark.slow
def test_determinism_is_enabled_here_and_in_what_is_started_from_here(fresh):
    # With other versions nothing is used that was computed otherwise.
    assert fresh[0] == "False True True"
    started = python("-c", FRESH, **{backend.DETERMINISTIC: "1"})
    assert started.stdout.startswith("True True False\n")


@pytest.mark.parametrize("main", [features.main, final.main, search.main])
def test_commands_enable_determinism(main, monkeypatch):
    def enable():
        raise InputError("enabled")

    monkeypatch.setattr(backend, "enable_determinism", enable)
    with pytest.raises(InputError, match="^enabled$"):
        main(["--data", "sample", "--deterministic"])
