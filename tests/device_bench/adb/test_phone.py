"""phone.py: the cores that are taken, and what a phone says of itself and of what slows it down."""

import pytest

from edgenet.device_bench.adb import phone


@pytest.mark.parametrize(
    ("threads", "expected"),
    [(1, (7,)), (2, (4, 5, 6, 7)), (4, (4, 5, 6, 7)), (5, tuple(range(8))), (9, tuple(range(8)))],
)
def test_the_fastest_clusters_that_hold_all_threads_are_taken(threads: int, expected: tuple[int, ...]) -> None:
    assert (
        phone.big_cores({**dict.fromkeys(range(4), 1.8), **dict.fromkeys((4, 5, 6), 2.4), 7: 2.8}, threads) == expected
    )  # type: ignore[dict-item]
    assert phone.big_cores({}, threads) == ()


def test_the_mask_is_hexadecimal() -> None:
    assert (phone.mask((4, 5, 6, 7)), phone.mask((0,)), phone.mask((7,))) == ("f0", "1", "80")


def test_a_phone_that_tells_nothing_has_none_everywhere() -> None:
    for text in ("", "\x00garbage", "edgenet-section:battery\nCan't find service: battery\n"):
        state, about = phone.state(phone.split(text)), phone.about(phone.split(text))
        assert not [v for v in (*state.values(), *about.values()) if v]
        assert phone.warnings(about, state, state) == []


def test_what_slows_a_phone_down_is_said() -> None:
    calm = phone.state({}) | {"cap_khz": {"7": 2_800_000}}
    about = phone.about({}) | {"max_khz_by_core": {"0": 1_800_000, "7": 2_800_000}}
    hot = calm | {"thermal_status": 2, "battery_c": 41.0, "battery_percent": 12, "battery_saver": True}
    assert phone.warnings(about, calm, calm) == []
    warned = phone.warnings(about, calm, hot | {"cap_khz": {"7": 1_900_000}})
    assert [w.text.split(":")[0] for w in warned] == [
        "the phone was throttling (thermal status 2, moderate)",
        "the battery was at 41.0 °C",
        "the battery is at 12 %",
        "the battery saver is on, which slows the phone down",
        "after it was measured, the clock of core 7 was capped at 1.90 of 2.80 GHz",
    ]
    assert [(w.code, w.value) for w in warned] == [
        ("throttled", 2),
        ("hot-battery", 41.0),
        ("low-battery", 12),
        ("battery-saver", None),
        ("capped-clock", 1.9),
    ]
