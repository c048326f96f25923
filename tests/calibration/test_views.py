"""views.py: other views of the same pictures, and where calibration looks at them."""

import numpy as np
import pytest

from edgenet.calibration.views import VIEWS, more_views


def photograph(height: int = 20, width: int = 30, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize(("size", "channels"), [((20, 30), 3), ((16, 16), 1)])
def test_a_view_has_the_shape_and_the_type_of_its_picture(size: tuple[int, int], channels: int) -> None:
    seen = list(more_views([photograph(*size, channels)], 100))
    assert len(seen) == len(VIEWS)
    assert {(v.shape, v.dtype) for v in seen} == {((*size, channels), np.dtype(np.uint8))}
    assert len({v.tobytes() for v in seen}) == len(VIEWS)


def test_every_picture_is_mirrored_before_one_is_cut_closer() -> None:
    pictures = [photograph(), photograph()[::-1]]
    first, second, *rest = more_views(pictures, 3)
    np.testing.assert_array_equal(first, pictures[0][:, ::-1])
    np.testing.assert_array_equal(second, pictures[1][:, ::-1])
    assert len(rest) == 1


def test_a_closer_view_is_a_part_of_the_picture_made_larger() -> None:
    picture = np.zeros((20, 20, 1), np.uint8)
    picture[:10, :10] = 200  # the upper left quarter
    corner = list(more_views([picture], 2))[1]  # 16 of 20 rows from the upper left
    assert corner[:11, :11].min() == 200
    assert corner[14:].max() == 0


def test_no_more_views_than_asked_for() -> None:
    assert [len(list(more_views([photograph()] * 4, n))) for n in (0, 1, 5, 1000)] == [0, 1, 5, 4 * len(VIEWS)]
