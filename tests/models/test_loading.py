"""Batches whose order and random numbers do not depend on threads, parts or where they begin."""

import threading

import numpy as np
import pytest

from cvops.datasets.loading import Loader, groups_of, load_groups


def item(index, rng):
    return np.array(index), np.array(rng.random())


def batches(epoch=0, first=0, length=7, batch_size=3, **options):
    return list(Loader(item, length, batch_size, 5, **options).batches(epoch, first))


def test_epoch_has_each_image_and_fills_the_last_batch_up():
    indices = np.concatenate([x for x, _ in batches()])
    assert sorted(indices[:7]) == list(range(7))
    assert indices[7:].tolist() == indices[:2].tolist()
    noise = np.concatenate([x for _, x in batches()])
    assert len(set(noise)) == 9  # another one for each place


def test_epochs_and_seeds_have_other_orders():
    orders = {tuple(np.concatenate([x for x, _ in batches(epoch)])) for epoch in range(3)}
    assert len(orders) == 3


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("first", [0, 2, 3])
def test_batches_do_not_depend_on_threads_and_on_the_first_one(threads, first):
    found = batches(1, first, threads=threads)
    assert len(found) == 3 - first
    for ours, theirs in zip(found, batches(1)[first:]):
        for one, other in zip(ours, theirs):
            np.testing.assert_array_equal(one, other)


def test_parts_together_are_the_batch_of_one_process():
    whole = batches(length=10, batch_size=4)
    parts = [batches(length=10, batch_size=2, part=part, parts=2) for part in (0, 1)]
    for batch, *halves in zip(whole, *parts):
        for one, *other in zip(batch, *halves):
            np.testing.assert_array_equal(one, np.concatenate(other))


def test_more_images_in_a_batch_than_in_the_set_repeat():
    ((indices, _),) = batches(length=2, batch_size=5)
    assert sorted(indices) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length: expected an integer in"),
        ({"batch_size": 0}, "batch_size: expected an integer in"),
        ({"part": 2, "parts": 2}, "part: expected an integer in"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        batches(**options)


@pytest.mark.parametrize("threads", [-1, 257])
def test_number_of_threads_out_of_range_is_refused(threads):
    with pytest.raises(ValueError, match=r"threads: expected an integer in \[0, 256\]"):
        next(load_groups(len, [["a"]], threads))


def test_groups_are_loaded_in_order_and_not_all_in_advance():
    asked = []

    def groups():
        for group in groups_of(range(20), 2):
            asked.append(group)
            yield group

    found = load_groups(lambda x: x * x, groups(), threads=2)
    assert next(found) == [0, 1]
    assert len(asked) == 3
    assert list(found)[-1] == [18 * 18, 19 * 19]


def test_error_of_an_item_is_raised_and_the_threads_end():
    before = threading.active_count()

    def fail(number):
        raise ValueError(f"item {number}")

    with pytest.raises(ValueError, match="item 0"):
        list(load_groups(fail, [[0, 1], [2]], threads=2))
    assert threading.active_count() == before


def test_last_group_is_shorter():
    assert list(groups_of("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
