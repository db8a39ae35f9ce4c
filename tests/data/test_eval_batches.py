"""Evaluation batches: every example once, in order, and copies that count for nothing."""

import chex
import numpy as np
import pytest

from mmvae_jax.data import MultimodalArrays, Shard, eval_batches

SIZE = 11


@pytest.fixture
def dataset() -> MultimodalArrays:
    rows = np.arange(SIZE)
    return MultimodalArrays(
        data={"image": np.repeat(rows[:, None], 3, axis=1).astype(np.uint8), "word": 10 * rows},
        labels=rows,
        mask={"image": rows % 2 == 0, "word": rows % 3 == 0},
        weight=rows.astype(np.float32) / 2,
    )


@pytest.mark.parametrize("batch_size", [1, 4, 11, 12, 40])
def test_every_example_comes_once_and_in_order(dataset, batch_size):
    steps = list(eval_batches(dataset._replace(mask=None, weight=None), batch_size))
    assert {len(batch.labels) for batch in steps} == {batch_size}
    weight = np.concatenate([batch.weight for batch in steps])
    assert weight.dtype == np.float32
    assert weight.sum() == SIZE
    for name in dataset.data:
        mask = np.concatenate([batch.mask[name] for batch in steps])
        np.testing.assert_array_equal(mask, weight == 1)
        values = np.concatenate([batch.data[name] for batch in steps])
        np.testing.assert_array_equal(values[mask], dataset.data[name])
        assert (values[~mask] == dataset.data[name][-1]).all()
        assert values.dtype == dataset.data[name].dtype


def test_the_mask_and_the_weight_of_real_rows_are_those_of_the_data_set(dataset):
    *_, last = eval_batches(dataset, 4)
    np.testing.assert_array_equal(last.labels, [8, 9, 10, 10])
    np.testing.assert_array_equal(last.mask["image"], [True, False, True, False])
    np.testing.assert_array_equal(last.mask["word"], [False, True, False, False])
    np.testing.assert_array_equal(last.weight, np.float32([4, 4.5, 5, 0]))
    assert last.weight.dtype == np.float32


def test_they_can_be_counted_and_iterated_twice(dataset):
    steps = eval_batches(dataset, 4)
    assert len(steps) == 3
    chex.assert_trees_all_equal(list(steps), list(steps))


@pytest.mark.parametrize("count", [2, 4])
def test_shards_put_together_are_the_batches_of_a_single_process(dataset, count):
    shards = [eval_batches(dataset, 8, shard=Shard(index, count)) for index in range(count)]
    assert {len(shard) for shard in shards} == {2}
    for whole, *parts in zip(eval_batches(dataset, 8), *shards, strict=True):
        for name in ("labels", "weight"):
            put_together = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(put_together, getattr(whole, name))
        for name in dataset.data:
            put_together = np.concatenate([part.mask[name] for part in parts])
            np.testing.assert_array_equal(put_together, whole.mask[name])


def test_no_examples_make_no_batches():
    steps = eval_batches(MultimodalArrays({"x": np.zeros((0, 2))}), 4)
    assert len(steps) == 0
    assert list(steps) == []


@pytest.mark.parametrize(
    ("batch_size", "shard", "message"),
    [
        (0, Shard(), "batch_size is 0"),
        (6, Shard(0, 4), "batch_size is 6"),
        (4, Shard(4, 4), "shard.index is 4"),
    ],
)
def test_settings_out_of_range_are_refused(dataset, batch_size, shard, message):
    with pytest.raises(ValueError, match=message):
        eval_batches(dataset, batch_size, shard=shard)
