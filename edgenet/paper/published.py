"""What was published, as data: the tables of the EfficientNet paper.

The files and their sources are in data/. A figure is written once, there; code reads it from here.
"""

import csv
from functools import cache
from importlib.resources import files

from edgenet.errors import InputError

TABLES = {
    "1": "table1_efficientnet_b0",
    "2": "table2_imagenet",
    "3": "table3_scaling",
    "4": "table4_latency",
    "5": "table5_transfer",
    "7": "table7_scaled_b0",
    "8": "table8_val_test",
    "lite": "efficientnet_lite",
}
Row = dict[str, str | float | None]


@cache
def table(name: str) -> tuple[Row, ...]:
    """Return the rows of a published table: text, numbers, and None where nothing was printed.

    Raises:
        InputError: there is no such table.
    """
    return tuple({k: _value(v) for k, v in row.items()} for row in printed(name))


@cache
def printed(name: str) -> tuple[dict[str, str], ...]:
    """Return the rows with their figures as printed, "5.3" say: the digits tell how exact a figure is.

    Raises:
        InputError: there is no such table.
    """
    if name not in TABLES:
        raise InputError(f"there is no table '{name}' (valid: {', '.join(TABLES)})")
    text = (files("edgenet.paper") / "data" / f"{TABLES[name]}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def _value(text: str) -> str | float | None:
    if text == "":
        return None
    try:
        return float(text)
    except ValueError:
        return text


def matches(value: float, figure: str) -> bool:
    """Tell whether `value`, rounded to as many decimals as `figure` was printed with, is `figure`."""
    decimals = len(figure.partition(".")[2])
    return f"{value:.{decimals}f}" == figure
