"""Tests of the configuration: its checks and its JSON form."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fashion_keras.config import (
    Config,
    InputError,
    deciding,
    names,
    read_config,
    to_json,
    with_whole_paths,
)


def test_json_round_trip_gives_an_equal_config(tmp_path):
    config = Config(data="a folder/ü", image_size=150, droprate=0.35, seed=7)
    file = tmp_path / "config.json"
    file.write_text(to_json(config), encoding="utf-8")
    assert read_config(file) == config
    assert tuple(json.loads(to_json(config))) == names()
    assert names()[:3] == ("data", "label_column", "label_pattern")


def test_fields_that_json_does_not_name_keep_their_defaults(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"augmented_copies": 3, "droprate": 0}')
    config = read_config(file)
    assert config == Config(augmented_copies=3, droprate=0.0)
    assert type(config.droprate) is float


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"size": 150, "drop": 0.1}',
            f"A configuration has the keys {', '.join(names())}. Received: drop, size",
        ),
        (b"[1, 2]", "Expected a JSON object. Received: [1, 2]"),
        (b"null", "Expected a JSON object. Received: None"),
        (b'{"rotation": }', "Expecting value: line 1 column 14"),
        (b'{"seed": 0}', "`seed` must lie between 1"),
        (b'{"predict_size": 70}', "`predict_size` must be 0, or 71 or more"),
        (b"\xff\xd8\xff\xe0", "'utf-8' codec can't decode"),
    ],
)
def test_error_in_a_file_names_the_file(content, message, tmp_path):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"config.json: {re.escape(message)}"):
        read_config(file)


def test_missing_file_names_the_command_that_writes_it(tmp_path):
    with pytest.raises(InputError, match=r"No .* file at .*no.json; `python -m tuning.search` "):
        read_config(tmp_path / "no.json")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("image_size", value, "be of type int") for value in ("150", 150.0, True, None, [150])),
        ("droprate", True, "be of type float"),
        ("precision", "float16", "be one of auto, float32, mixed_float16, mixed_bfloat16"),
        ("seed", 0, "lie between 1 and 1000000000"),
        ("seed", 2**31, "lie between 1 and 1000000000"),
        ("image_size", 70, "lie between 71 and 2000"),
        ("droprate", 0.96, "lie between 0.0 and 0.95"),
        ("learning_rate", 0.0, "lie between 1e-08 and 10.0"),
        ("rotation", float("nan"), "lie between 0.0 and 0.5"),
    ],
)
def test_wrong_value_fails_by_name(name, value, expected):
    with pytest.raises(InputError, match=f"`{name}` must {expected}. Received: {name}="):
        Config(**{name: value})


def test_limits_themselves_are_allowed():
    Config(seed=1_000_000_000, image_size=71, droprate=0.95, inner_size=0)


def test_paths_are_whole_where_they_are_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "clothing", "weights.h5"):
        Path(name).mkdir()
    found = with_whole_paths(Config(data="photos", weights="weights.h5"))
    assert (found.data, found.weights) == (str(tmp_path / "photos"), str(tmp_path / "weights.h5"))
    assert with_whole_paths(Config()) == Config()


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 2  # pyright: ignore[reportAttributeAccessIssue]


def test_each_field_has_a_help_text():
    assert all(len(field.metadata["help"]) > 10 for field in dataclasses.fields(Config))


def test_fields_say_what_they_decide():
    config = Config(rotation=0.1, split_seed=3)
    photos = {"label_column": "", "label_pattern": "", "review": "", "split_seed": 3}
    assert deciding(config, "photos") == photos
    assert deciding(config, "copies") == {
        "rotation": 0.1,
        "zoom": 0.1,
        "mirror": True,
        "augmentation_seed": 1,
    }
    features = {"backbone": "xception", "image_size": 299, "precision": "auto"}
    features |= {"feature_batch_size": 32}
    assert deciding(config, "features") == features
    assert "seed" in deciding(config, "head")
    assert "learning_rate" not in deciding(config, "fine_tuning")


def test_the_default_of_a_later_field_is_part_of_no_key():
    later: dict[str, Any] = {"class_weights": "balanced", "objective": "balanced_accuracy"}
    for kind in ("head", "fine_tuning"):
        assert not later.keys() & deciding(Config(), kind)
        assert later.items() <= deciding(Config(**later), kind).items()
