"""Tests of the program that loads a saved file elsewhere; it runs where a variable says so.

`FASHION_KERAS_BACKENDS` names the backends, separated by commas, such as `jax,torch@oldest`: with
`@oldest` behind it a backend is tried with the oldest version of Keras that reads the file.
"""

import json
import os
import site
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fashion_keras import cli, inspection
from fashion_keras.config import Config, InputError
from fashion_keras.model import build_head
from fashion_keras.predict.__main__ import RELEASED
from fashion_keras.saving import save_classifier
from tests.backends import __main__ as program
from tests.backends import environments, inside, judge, labels
from tests.backends.environments import BACKENDS, Found
from tests.backends.photos import PHOTOS, write_photos
from tests.conftest import ENVIRONMENT

VARIABLE = "FASHION_KERAS_BACKENDS"
CHOSEN = {name.strip() for name in os.environ.get(VARIABLE, "").split(",")} - {""}
POSSIBLE = [f"{backend}{age}" for age in ("", "@oldest") for backend in BACKENDS]
LABELS = ["hat", "shoes", "t-shirt"]
PROBABILITIES = np.random.default_rng(1).dirichlet([1, 1, 1], PHOTOS).astype("float32")
FACTS = {
    "backend": "jax",
    "versions": {"python": "3.11.7", "keras": "3.15.1", "jax": "0.10.2", "numpy": "2.4.6"},
    "seconds": {"load": 1.0, "called": 2.0},
    "precision": "float32",
    "has_project": False,
}


@pytest.fixture
def model(tiny_backbone: keras.Model, tmp_path: Path) -> Path:
    """Save a classifier that was not trained."""
    file = tmp_path / "our.keras"
    save_classifier(tiny_backbone, build_head(Config(inner_size=0), 3), LABELS, 71, file)
    return file


@pytest.fixture
def right() -> Found:
    """Return what an environment finds where all is right."""
    saved_again = {"member": None, "layer": LABELS}
    both = {"original": {"member": LABELS, "layer": LABELS}, "saved_again": saved_again}
    few = {name: PROBABILITIES[:2].copy() for name in ("repeated", "saved_again", "predicted")}
    return Found({"called": PROBABILITIES.copy(), **few}, FACTS, both)


# Judging.


def test_what_is_right_has_no_problems(right: Found) -> None:
    assert judge.problems(right, right) == []


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        (
            "called",
            2e-4,
            "called photo by photo, differs from TensorFlow by 0.0002; at most 0.0001",
        ),
        ("called", np.nan, "called photo by photo, differs from TensorFlow by nan; at most 0.0001"),
        ("repeated", 1e-5, "called again, differs from before by 1e-05; at most 1e-06"),
        ("saved_again", 2e-4, "saved and loaded again, differs from TensorFlow by 0.0002; at most"),
        ("predicted", 2e-4, "under `predict`, differs from TensorFlow by 0.0002; at most 0.0001"),
    ],
)
def test_one_wrong_probability_is_enough(
    name: str, change: float, problem: str, right: Found
) -> None:
    wrong = {key: value.copy() for key, value in right.probabilities.items()}
    wrong[name][-1, 1] += change
    (found,) = judge.problems(right._replace(probabilities=wrong), right)
    assert found.startswith(f"the model, {problem}")


def test_a_small_difference_is_allowed(right: Found) -> None:
    near = right.probabilities | {"called": right.probabilities["called"] + np.float32(9e-5)}
    near["repeated"] = near["called"][:1]
    assert judge.problems(right._replace(probabilities=near), right) == []


def test_every_photo_needs_an_answer(right: Found) -> None:
    found = right._replace(probabilities=right.probabilities | {"called": PROBABILITIES[:31]})
    assert judge.problems(found, right) == ["the model gave 31 answers for 32 photos"]


@pytest.mark.parametrize("name", ["repeated", "saved_again", "predicted"])
@pytest.mark.parametrize("wrong", [np.empty((0, 3)), PROBABILITIES[:2, :2]])
def test_missing_probabilities_are_wrong(name: str, wrong: np.ndarray, right: Found) -> None:
    found = right._replace(probabilities=right.probabilities | {name: wrong})
    assert "differs from" in " ".join(judge.problems(found, right))


def test_predict_in_half_precision_is_not_judged(right: Found) -> None:
    wrong = right.probabilities | {"predicted": right.probabilities["predicted"] + 0.01}
    found = right._replace(probabilities=wrong, facts=FACTS | {"precision": "bfloat16"})
    assert judge.problems(found, right) == []


@pytest.mark.parametrize(
    ("file", "place", "received", "problem"),
    [
        ("original", "layer", None, "the layer's name says None, but fashion.json ['hat',"),
        ("saved_again", "layer", LABELS[::-1], "the layer's name, saved again, says ['t-shirt',"),
        ("original", "member", LABELS[:2], "fashion.json holds the labels ['hat', 'shoes'] for 3"),
    ],
)
def test_wrong_labels_are_told(
    file: str, place: str, received: list[str] | None, problem: str, right: Found
) -> None:
    wrong = right.labels | {file: right.labels[file] | {place: received}}
    found = judge.problems(right._replace(labels=wrong), right)
    assert any(text.startswith(problem) for text in found)


def test_an_environment_with_this_project_proves_nothing(right: Found) -> None:
    found = right._replace(facts=FACTS | {"has_project": True})
    assert judge.problems(found, right) == ["fashion_keras is installed there"]
    assert judge.problems(found, right, alone=False) == []


def test_the_loader_refuses_what_is_too_old() -> None:
    assert ".".join(map(str, inspection.OLDEST_KERAS)) == judge.OLDEST_KERAS


def test_versions_are_compared_as_numbers() -> None:
    assert not judge.is_too_old(judge.OLDEST_KERAS)
    assert judge.is_too_old("3.9.10")
    assert not judge.is_too_old("3.100.0")


# Photos, labels and the model itself.


def test_photos_have_many_sizes(sample_folder: Path, tmp_path: Path) -> None:
    sizes = write_photos(sample_folder, tmp_path)
    pixels = [np.load(file) for file in sorted(tmp_path.glob("*.npy"))]
    assert [array.shape for array in pixels] == [(*size, 3) for size in sizes]
    assert {array.dtype for array in pixels} == {np.dtype("uint8")}
    assert len({max(size) for size in sizes}) > PHOTOS // 2
    assert (min(map(max, sizes)), max(map(max, sizes))) == (64, 1024)


def test_folder_without_enough_photos_is_refused(sample_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Expected 32 photos in .*hat\. Received: 2\."):
        write_photos(sample_folder / "test" / "hat", tmp_path)
    with pytest.raises(InputError, match=r"No folder of photos .*gone; name one with --photos"):
        write_photos(tmp_path / "gone", tmp_path)


def test_unreadable_photo_is_named(tmp_path: Path) -> None:
    for number in range(PHOTOS):
        (tmp_path / f"{number}.jpg").write_text("no photo")
    with pytest.raises(InputError, match=r"0\.jpg: not a photo"):
        write_photos(tmp_path, tmp_path)


def test_labels_are_read_with_the_standard_library_alone(model: Path) -> None:
    def read() -> dict:
        words = [sys.executable, "-I", "-S", labels.__file__, str(model)]
        return json.loads(subprocess.run(words, capture_output=True, check=True).stdout)

    assert read() == {"member": LABELS, "layer": LABELS}
    loaded: Any = keras.saving.load_model(model)
    loaded.save(model)
    assert read() == {"member": None, "layer": LABELS}


def test_changed_weights_are_found(model: Path, right: Found, tmp_path: Path) -> None:
    drawn = np.random.default_rng(1).integers(0, 256, (9, 90, 80, 3), dtype="uint8")
    photos = [photo[number:] for number, photo in enumerate(drawn)]
    base = right._replace(probabilities=inside.examine(model, photos, tmp_path)[0])
    assert judge.problems(base, base) == []
    changed: Any = keras.saving.load_model(model)
    changed.set_weights([weight * 1.01 for weight in changed.get_weights()])
    changed.save(model)
    found = right._replace(probabilities=inside.examine(model, photos, tmp_path)[0])
    differences = judge.problems(found, base)
    assert [text.split(",")[1] for text in differences] == [
        " called photo by photo",
        " saved and loaded again",
        " under `predict`",
    ]


# Environments.


def make_and_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make an environment, with nothing installed; return what would have been run."""
    run: list[str] = []
    place = folder / "keras-3.15.1-jax"
    script = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def record(words: list[str], folder: Path) -> None:
        run.append(" ".join(words[1:]))
        script.parent.mkdir(parents=True, exist_ok=True)
        script.touch()

    monkeypatch.setattr(environments, "_run", record)
    assert environments.make("jax", "3.15.1", folder)[0] == script
    return run


def test_complete_environments_are_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_and_count(tmp_path, monkeypatch)
    assert [words.split()[1] for words in first] == ["venv", "pip", "pip"]
    assert first[1].endswith("--no-compile jax")
    assert first[2].endswith("--no-compile keras==3.15.1 numpy pillow h5py")
    assert make_and_count(tmp_path, monkeypatch) == []
    (tmp_path / "keras-3.15.1-jax" / "complete.json").unlink()
    assert len(make_and_count(tmp_path, monkeypatch)) == 3


def test_another_requirement_makes_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_and_count(tmp_path, monkeypatch)
    monkeypatch.setenv("FASHION_KERAS_PIP_JAX", "jax>=0.5 --find-links wheels")
    assert make_and_count(tmp_path, monkeypatch)[1].endswith("jax>=0.5 --find-links wheels")


@pytest.mark.parametrize(
    ("keras_version", "fails", "problems", "remark"),
    [
        ("3.15.1", "", [], ""),
        ("3.15.1", "make", ["no environment: no such backend"], ""),
        ("3.15.1", "run", ["cannot be loaded: unknown key"], ""),
        ("3.14.1", "make", ["no environment: no such backend"], ""),
        ("3.14.1", "run", [], "cannot be loaded: unknown key"),
        ("3.14.1", "", ["reads the file, though 3.15.0 is said to be the oldest"], ""),
    ],
)
def test_verdict(
    keras_version: str,
    fails: str,
    problems: list[str],
    remark: str,
    right: Found,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def fail(*_: object) -> None:
        raise InputError("no such backend" if fails == "make" else "unknown key")

    monkeypatch.setattr(judge, "OLDEST_KERAS", "3.15.0")
    monkeypatch.setattr(environments, "make", lambda *_: (Path("python"), 3.0))
    monkeypatch.setattr(environments, "run", lambda *_: right)
    if fails:
        monkeypatch.setattr(environments, fails, fail)
    row = program.check("jax", keras_version, tmp_path, tmp_path, tmp_path, right)
    assert (row.problems, row.remark) == (problems, remark)


# The whole program. Its environment borrows the packages of this one, but not this project.


def borrow(backend: str, keras_version: str, folder: Path) -> tuple[Path, float]:
    """Stand in for `environments.make`; the environment for JAX is left empty."""
    place = folder / backend
    words = [sys.executable, "-m", "venv", "--without-pip", str(place)]
    subprocess.run(words, check=True)
    (packages,) = [*place.glob("lib/*/site-packages"), *place.glob("Lib/site-packages")]
    if backend != "jax":
        (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python"), 1.0


def test_program_proves_and_refutes(
    model: Path,
    right: Found,
    sample_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environments, "make", borrow)
    folders = ["--environments", str(tmp_path / "environments"), "--results", str(tmp_path)]
    words = [str(model), "--photos", str(sample_folder), *folders]
    program.main([*words, "--only", "tensorflow"])
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown.startswith(f"| tensorflow | {version('keras')} | tensorflow")
    assert shown.endswith("| right |")
    assert shown in (tmp_path / "backends.md").read_text()
    (row,) = json.loads((tmp_path / "benchmarks" / "backends.json").read_text())["rows"]
    assert row["called"] <= 1e-6
    assert row["problems"] == []
    monkeypatch.setattr(program, "base_of", lambda *_: right)  # It is not needed again.
    with pytest.raises(SystemExit, match="^1$"):
        program.main([*words, "--only", "jax"])
    assert "| cannot be loaded: ModuleNotFoundError: No module named" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{model}", "--only", "jax,pytorch"], "Expected tensorflow, jax, torch, openvino."),
        (["{model}", "--keras", "3.15.1", "newest"], "Expected versions such as 3.15.1."),
        (["gone.keras"], "No model file gone.keras"),
        (["{model}", "--photos", "gone"], "No folder of photos gone"),
    ],
)
def test_wrong_usage(
    words: list[str], message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        cli.run(lambda: program.main([word.format(model=model) for word in words]))
    assert message in capsys.readouterr().err


# The real thing.


@pytest.fixture(scope="session")
def photos(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decode the real photos once."""
    folder = tmp_path_factory.mktemp("photos")
    write_photos(real_data / "test", folder)
    return folder


@pytest.fixture(scope="session")
def base(photos: Path) -> Found:
    """Return what TensorFlow finds here."""
    return program.base_of(RELEASED, photos)


@pytest.fixture(scope="session")
def environments_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where environments are kept."""
    cache = ENVIRONMENT["FASHION_KERAS_CACHE"]
    return Path(cache) / "environments" if cache else tmp_path_factory.mktemp("environments")


def test_names_of_backends_are_known() -> None:
    assert set(POSSIBLE) >= CHOSEN, f"expected some of {', '.join(POSSIBLE)} in {VARIABLE}"


@pytest.mark.parametrize("chosen", POSSIBLE)
def test_released_file_gives_the_same_elsewhere(
    chosen: str, request: pytest.FixtureRequest
) -> None:
    if chosen not in CHOSEN:
        pytest.skip(f"name {chosen} in {VARIABLE} to load the released file there")
    backend, _, age = chosen.partition("@")
    keras_version = judge.OLDEST_KERAS if age else version("keras")
    photos, base, folder = map(request.getfixturevalue, ("photos", "base", "environments_folder"))
    row = program.check(backend, keras_version, RELEASED, photos, folder, base)
    assert not row.problems, f"{backend}, Keras {keras_version}: {'; '.join(row.problems)}"
