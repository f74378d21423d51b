"""Memory that is used again while a file is decoded."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np

from fewbits.coder.scratch import Scratch, scratch_array


def test_without_a_lender_arrays_are_their_owners() -> None:
    one, other = scratch_array(5), scratch_array(5)
    assert one.shape == (5,) and one.dtype == np.int32 and not np.shares_memory(one, other)


def test_a_thread_gets_its_array_again_or_a_larger_one() -> None:
    scratch = Scratch()
    with scratch.lent():
        first = scratch_array(8)
        assert np.shares_memory(first, scratch_array(3)) and scratch_array(3).shape == (3,)
        larger = scratch_array(9)
        assert not np.shares_memory(first, larger)
    with scratch.lent():
        assert np.shares_memory(larger, scratch_array(9))
    assert not np.shares_memory(larger, scratch_array(9))


def test_threads_at_the_same_time_have_arrays_of_their_own() -> None:
    scratch, together = Scratch(), Barrier(2)

    def filled(value: int) -> bool:
        with scratch.lent():
            array = scratch_array(1000)
            together.wait(60)
            array[:] = value
            together.wait(60)
            return bool((array == value).all())

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(filled, (1, 2)))
