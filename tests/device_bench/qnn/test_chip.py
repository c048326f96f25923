"""qnn/chip.py: which Snapdragons there are, under which names, and which are refused."""

import re

import pytest

from edgenet.device_bench.qnn.chip import FIRST_HTP, chips, find_chip, sold_as
from edgenet.errors import InputError
from helpers.places import ROOT


@pytest.mark.parametrize("name", ["SM8750", "sm8750", "SM8750-AB", "Galaxy S25", "galaxy-s25", "Snapdragon 8 Elite"])
def test_a_chip_is_found_by_its_name_and_by_those_that_people_use(name: str) -> None:
    chip = find_chip(name)
    assert (chip.soc, chip.qnn_id, chip.hexagon) == ("SM8750", 69, 79)


def test_every_name_on_the_market_is_one_of_a_chip_with_a_hexagon_that_networks_are_compiled_for() -> None:
    assert all(find_chip(name).soc == soc for name, soc in sold_as().items())
    assert sum(chip.hexagon >= FIRST_HTP for chip in chips().values()) == 56


def test_the_manual_lists_every_chip_that_is_compiled_for() -> None:
    _, _, after = (ROOT / "docs/accelerators.md").read_text().partition("The 56:")
    listed = re.split(r",\s", after.partition(".")[0].strip())
    assert sorted(listed) == sorted(c.soc for c in chips().values() if c.hexagon >= FIRST_HTP)


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown Snapdragon 'SM8755' \(nearest: SM8750, .*\): give .* ro.soc.model"):
        find_chip("SM8755")
    with pytest.raises(InputError, match=r"unknown Snapdragon '' \(nearest: SM8750"):
        find_chip("")


@pytest.mark.parametrize(("name", "has"), [("SM6150", "Hexagon v66"), ("SM4635", "no Hexagon that QNN knows")])
def test_a_chip_without_the_matrix_unit_is_refused_with_the_reason(name: str, has: str) -> None:
    with pytest.raises(InputError, match=f"{name} has {has}, and INT8 networks are compiled for v68 and later"):
        find_chip(name)
