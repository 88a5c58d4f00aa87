"""Tests of the configuration: its checks and its JSON form."""

import dataclasses
import json

import pytest

from fashion_keras.config import (
    Config,
    InputError,
    deciding,
    from_json,
    names,
    read_config,
    to_json,
)


def test_json_round_trip_gives_an_equal_config():
    config = Config(data="a folder/ü", image_size=150, droprate=0.35, seed=7)
    assert from_json(to_json(config)) == config


def test_json_names_every_field_in_order():
    assert tuple(json.loads(to_json(Config()))) == names()
    assert names()[:3] == ("data", "weights", "image_size")


def test_fields_that_json_does_not_name_keep_their_defaults():
    assert from_json('{"augmented_copies": 3}') == Config(augmented_copies=3)


def test_unknown_key_fails_by_name_and_lists_the_valid_keys():
    valid = ", ".join(names())
    with pytest.raises(InputError, match=f"has the keys {valid}. Received: drop, size$"):
        from_json('{"size": 150, "drop": 0.1}')


@pytest.mark.parametrize("value", ["150", 150.0, True, None, [150]])
def test_mistyped_value_fails_by_name(value):
    with pytest.raises(InputError, match="`image_size` must be of type int. Received: image_size="):
        Config(image_size=value)


def test_a_truth_value_is_no_number():
    with pytest.raises(InputError, match="`droprate` must be of type float.*droprate=True"):
        Config(droprate=True)


def test_whole_number_is_taken_for_a_float():
    config = from_json('{"droprate": 0}')
    assert (config.droprate, type(config.droprate)) == (0.0, float)


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("seed", 0, "1 and 1000000000"),
        ("seed", 2**31, "1 and 1000000000"),
        ("image_size", 70, "71 and 2000"),
        ("droprate", 0.96, "0.0 and 0.95"),
        ("learning_rate", 0.0, "1e-08 and 10.0"),
        ("rotation", float("nan"), "0.0 and 0.5"),
    ],
)
def test_value_out_of_range_fails_with_its_limits(name, value, limits):
    with pytest.raises(InputError, match=f"`{name}` must lie between {limits}. Received: {name}="):
        Config(**{name: value})


def test_limits_themselves_are_allowed():
    config = Config(seed=1_000_000_000, image_size=71, droprate=0.95, inner_size=0)
    assert (config.seed, config.image_size, config.droprate, config.inner_size) == (
        1_000_000_000,
        71,
        0.95,
        0,
    )


@pytest.mark.parametrize("text", ["[1, 2]", '"text"', "3", "null"])
def test_json_that_is_no_object_is_refused(text):
    with pytest.raises(InputError, match="Expected a configuration as a JSON object. Received: '"):
        from_json(text)


def test_text_that_is_no_json_is_refused_with_the_place():
    with pytest.raises(InputError, match="as a JSON object. Received: .*line 1 column 11"):
        from_json('{"views": }')


def test_config_is_read_from_a_file(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(to_json(Config(epochs=4)), encoding="utf-8")
    assert read_config(file) == Config(epochs=4)


def test_missing_file_names_the_command_that_writes_it(tmp_path):
    with pytest.raises(InputError, match=r"No .* file at .*no.json; `python -m tuning.search` "):
        read_config(tmp_path / "no.json")


def test_error_in_a_file_names_the_file(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"seed": 0}')
    with pytest.raises(InputError, match="config.json: `seed` must lie between 1"):
        read_config(file)


def test_file_that_is_no_text_is_named(tmp_path):
    file = tmp_path / "config.json"
    file.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match="config.json: .*can't decode"):
        read_config(file)


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 2  # pyright: ignore[reportAttributeAccessIssue]


def test_each_field_has_a_help_text():
    assert all(len(field.metadata["help"]) > 10 for field in dataclasses.fields(Config))


def test_fields_say_what_they_decide():
    config = Config(rotation=0.1, split_seed=3)
    assert deciding(config, "photos") == {"split_seed": 3}
    assert deciding(config, "copies") == {"rotation": 0.1, "zoom": 0.1, "augmentation_seed": 1}
    assert deciding(config, "features") == {
        "image_size": 299,
        "precision": "float32",
        "feature_batch_size": 32,
    }
    assert "seed" in deciding(config, "head")
    assert "learning_rate" not in deciding(config, "fine_tuning")
