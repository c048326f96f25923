"""shelf.py: what was put is what comes back, from memory and from disk, and memory is bounded."""

import numpy as np
import pytest

from edgenet.calibration.shelf import Shelf, Store


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_what_was_put_comes_back_in_any_order(in_memory: bool, dtype: str) -> None:
    rng = np.random.default_rng(0)
    shelf = Shelf(4, (1, 5, 3), np.dtype(dtype), in_memory)
    put = rng.integers(-100, 100, (4, 1, 5, 3)).astype(dtype)
    for i in (2, 0, 3, 1):
        shelf[i] = put[i]
    np.testing.assert_array_equal(np.stack(list(shelf)), put)
    np.testing.assert_array_equal(shelf[1], put[1])
    assert shelf[1].dtype == dtype
    assert (len(shelf), shelf.shape) == (4, (4, 1, 5, 3))
    with pytest.raises(IndexError):
        shelf[4]


def test_what_was_never_put_is_an_error_and_no_endless_wait() -> None:
    shelf = Shelf(2, (5,), np.dtype(np.float32), in_memory=False)
    shelf[0] = np.ones(5, np.float32)
    with pytest.raises(IndexError):
        shelf[1]


def test_numbers_that_do_not_lie_in_a_row_are_put_as_they_are() -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    shelf = Shelf(1, (6, 2), x.dtype, in_memory=False)
    shelf[0] = x.T[:, ::2]
    np.testing.assert_array_equal(shelf[0], x.T[:, ::2])


def test_a_store_goes_to_disk_beyond_its_bytes_and_takes_back_what_is_closed() -> None:
    store = Store(100)
    first, second = (store.shelf(4, (20,), np.dtype(np.int8)) for _ in range(2))
    assert (first.bytes_in_memory, second.bytes_in_memory) == (80, 0)
    first.close()
    assert store.shelf(4, (20,), np.dtype(np.int8)).bytes_in_memory == 80
