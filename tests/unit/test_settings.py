"""TOML plus overrides → config."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from swe_srl.errors import ConfigError
from swe_srl.settings import Config, apply_overrides, load


class Cat(Config):
    type: Literal["cat"] = "cat"
    lives: int = 9


class Dog(Config):
    type: Literal["dog"] = "dog"
    bark: str = "woof"


class House(Config):
    rooms: int = Field(1, ge=1)
    pet: Annotated[Cat | Dog, Field(discriminator="type")] = Cat()


class Street(Config):
    corner: House = House(rooms=5, pet=Cat(lives=2))


def write(tmp_path, text):
    path = tmp_path / "house.toml"
    path.write_text(text)
    return path


def test_a_file_and_overrides_make_a_config(tmp_path):
    path = write(tmp_path, "rooms = 2\n[pet]\ntype = 'cat'\nlives = 3\n")
    assert load(House, path, ["rooms=4", "pet.lives=7"]) == House(rooms=4, pet=Cat(lives=7))


def test_a_setting_inside_a_default_leaves_the_rest_of_that_default(tmp_path):
    """`--set sampling.max_new_tokens=120` once made step agreement greedy: its default samples at 1.0, Sampling's own at 0."""
    from swe_srl.evaluation.steps import AgreementConfig
    from swe_srl.teaching.teach import TeachConfig

    empty = write(tmp_path, "")
    assert load(Street, empty, ["corner.rooms=2"]).corner == House(rooms=2, pet=Cat(lives=2))
    assert load(Street, empty, ["corner.pet.lives=3"]).corner == House(rooms=5, pet=Cat(lives=3))
    assert load(Street, empty, ["corner.pet.type=dog"]).corner == House(rooms=5, pet=Dog())
    assert load(AgreementConfig, empty, ["sampling.max_new_tokens=120"]).sampling.temperature == 1.0
    assert load(TeachConfig, empty, ["context.max_observation_chars=9"]).context.window == "all"


def test_changing_the_type_of_a_variant_drops_the_old_ones_keys(tmp_path):
    path = write(tmp_path, "[pet]\ntype = 'cat'\nlives = 3\n")
    assert load(House, path, ["pet.type=dog", "pet.bark=wau"]).pet == Dog(bark="wau")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rooms = 0", "rooms: Input should be greater than or equal to 1"),
        ("garage = true", "garage: Extra inputs are not permitted"),
        ("rooms = ", "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_the_place(tmp_path, text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load(House, write(tmp_path, text))


def test_an_override_without_a_value_or_through_a_value_is_refused():
    with pytest.raises(ConfigError, match="not of the form"):
        apply_overrides({}, ["rooms"])
    with pytest.raises(ConfigError, match="is a value, not a table"):
        apply_overrides({"rooms": 1}, ["rooms.size=2"])


def test_overrides_leave_the_table_they_start_from_alone():
    table = {"pet": {"lives": 9}}
    apply_overrides(table, ["pet.lives=1"])
    assert table == {"pet": {"lives": 9}}


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ConfigError, match="no file and no preset 'nonsense'"):
        load(House, "nonsense")
