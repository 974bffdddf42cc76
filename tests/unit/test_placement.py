"""Which machine works on which item: near its image, unless others stand idle for it."""

import pytest

from swe_srl.runtime.placement import Placement


def placement(items: str, *machines: str, num_slots: int = 1) -> Placement[str]:
    """Items whose image is their first letter."""
    made = Placement[str](lambda item: item[0], num_slots)
    for machine in machines:
        made.join(machine)
    for item in items.split():
        made.add(item)
    return made


def test_a_machine_goes_on_with_the_images_it_has():
    items = placement("a1 a2 b1 b2 a3", "m", "n")
    assert [items.take("m"), items.take("n"), items.take("m"), items.take("n"), items.take("m")] == [
        "a1", "b1", "a2", "b2", "a3",
    ]  # fmt: skip


def test_an_idle_machine_leaves_what_another_can_take_in_its_next_round():
    items = placement("a1 a2 a3", "m", "n", num_slots=2)
    assert items.take("m") == "a1"
    assert items.take("n") is None
    assert [items.take("m"), items.take("m"), items.take("m")] == ["a2", "a3", None]


def test_an_idle_machine_helps_one_that_is_far_busier_from_the_end_of_what_waits():
    items = placement("a1 a2 a3 a4", "m", "n", num_slots=1)
    assert items.take("m") == "a1"
    assert items.take("n") == "a4"
    assert [items.take("n"), items.take("m")] == ["a2", "a3"]  # now both have the image, and take the first


def test_many_images_of_one_machine_make_it_busy_together():
    items = placement("a1 b1", "m", num_slots=1)
    items.take("m"), items.take("m")
    items.join("n")
    for item in ("a2", "b2"):
        items.add(item)
    assert items.take("n") == "b2"


def test_what_a_lost_machine_had_is_open_to_all_and_comes_first():
    items = placement("a1 a2 b1", "m", "n")
    assert items.take("m") == "a1"
    assert items.take("n") == "b1"
    items.leave("m")
    items.add("a1", in_front=True)
    assert [items.take("n"), items.take("n"), len(items)] == ["a1", "a2", 0]


@pytest.mark.parametrize("num_slots", [1, 3])
def test_some_free_machine_always_takes_what_waits(num_slots):
    items = placement(" ".join(f"{'abcab'[n % 5]}{n}" for n in range(40)), "m", "n", "o", num_slots=num_slots)
    while len(items):
        assert [item for machine in "mno" if (item := items.take(machine))]
