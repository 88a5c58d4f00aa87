"""Tests of what counts as a model: a wrong one is never left out in silence."""

import shutil
import zipfile

import pytest

from fashion_keras.classifier import load_classifier
from fashion_keras.config import RELEASED, InputError
from fashion_keras.describe import main as describe
from fashion_keras.inspection import find_model, looks_like_model, name_of
from fashion_keras.predict.__main__ import model_and_inputs
from tests.builders import LABELS, save_strong


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_strong(tmp_path_factory.mktemp("model") / "our.keras")


@pytest.fixture
def here(tmp_path, model, monkeypatch):
    """Start in a folder with a model under several names, photos and what is neither."""
    monkeypatch.chdir(tmp_path)
    for name in ("OUR.KERAS", "renamed.zip", "one/our.Keras", "two/a.keras", "two/b.keras"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(model, tmp_path / name)
    with zipfile.ZipFile("packed.zip", "w") as archive:
        archive.write(model, "results/our.keras")
    with zipfile.ZipFile("photos.zip", "w") as archive:
        archive.writestr("hat.jpg", b"")
    for name in ("saved/saved_model.pb", "photos/hat.jpg", "hat.jpg", "old.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("name", ["OUR.KERAS", "renamed.zip", "one", "one/"])
def test_a_model_is_found_under_any_name_and_answers(name, here):
    assert looks_like_model(name)
    assert load_classifier(name).labels == LABELS
    for words in ([name, "hat.jpg"], ["hat.jpg", name]):
        found, inputs = model_and_inputs(words)
        assert found == str(find_model(name))
        assert inputs == ["hat.jpg"]
    assert model_and_inputs(["hat.jpg"], name)[0] == str(find_model(name))


REFUSED = {
    "old.h5": "old.h5 is HDF5, as older versions of Keras wrote it, or weights alone. Expected a",
    "gone.H5": "No model file gone.H5. Expected a .keras file",
    "model.pt": "No model file model.pt",
    "model.TFLITE": "No model file model.TFLITE",
    "https://a.org/m.keras": "Download the model first",
    "packed.zip": "packed.zip holds a model: unpack it",
    "saved": "saved is a SavedModel of TensorFlow",
    "two": "two holds several models: a.keras, b.keras. Give one of them.",
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("first", [True, False])
def test_what_looks_like_a_model_and_is_none_is_refused(name, first, here):
    words = [name, "hat.jpg"] if first else ["hat.jpg", name]
    with pytest.raises(InputError, match=REFUSED[name]):
        model_and_inputs(words)


def test_photos_are_no_models(here):
    for name in ("hat.jpg", "photos", "photos.zip", "gone", "", "a\0b", "x" * 5000, "-"):
        assert not looks_like_model(name)
    words = ["hat.jpg", "photos", "photos.zip"]
    assert model_and_inputs(words) == (str(RELEASED), words)


def test_two_models_are_one_too_many(here):
    with pytest.raises(InputError, match="Expected one model. Received: one and two"):
        model_and_inputs(["one", "hat.jpg", "two"])
    with pytest.raises(InputError, match="Expected one model. Received: one and imagenet"):
        model_and_inputs(["imagenet", "hat.jpg"], "one")
    # Beside a file, a folder is one of photos, even if there is a model in it.
    assert model_and_inputs(["OUR.KERAS", "one"]) == ("OUR.KERAS", ["one"])
    assert model_and_inputs(["one", "hat.jpg"], "OUR.KERAS") == ("OUR.KERAS", ["one", "hat.jpg"])
    with pytest.raises(InputError, match="photos holds no model"):
        model_and_inputs(["hat.jpg"], "photos")


def test_other_commands_find_it_too(here, capsys):
    describe(["one"])
    assert f"4: {', '.join(LABELS)}" in capsys.readouterr().out
    with pytest.raises(InputError, match="photos holds no model"):
        describe(["photos"])


def test_name_of_a_model_ends_with_its_sha_256(here):
    assert name_of(find_model("one")).removeprefix("our.Keras") == name_of(
        find_model("OUR.KERAS")
    ).removeprefix("OUR.KERAS")
