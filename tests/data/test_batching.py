"""Batches: a function of seed and step, which visits every example once an epoch."""

import itertools
import json

import chex
import numpy as np
import pytest

from mmvae_jax.data import MultimodalArrays, Shard, batches, take

SIZE, BATCH_SIZE = 23, 5
STEPS_PER_EPOCH = SIZE // BATCH_SIZE


@pytest.fixture
def dataset() -> MultimodalArrays:
    """Arrays whose values are multiples of the row of their example."""
    rows = np.arange(SIZE)
    return MultimodalArrays(
        data={
            "image": np.broadcast_to(rows[:, None, None], (SIZE, 2, 3)).astype(np.float32),
            "word": 10 * rows[:, None],
        },
        labels=100 * rows,
        mask={"image": rows % 2 == 0, "word": rows % 3 == 0},
        weight=rows.astype(np.float32) / 2,
    )


def rows_of(batch: MultimodalArrays) -> list[int]:
    return list(batch.labels // 100)


def test_every_epoch_visits_every_example_at_most_once(dataset):
    steps = list(batches(dataset, BATCH_SIZE, seed=0, num_steps=3 * STEPS_PER_EPOCH))
    assert len(steps) == 3 * STEPS_PER_EPOCH
    epochs = np.array([rows_of(batch) for batch in steps]).reshape(3, -1)
    for epoch in epochs:
        assert len(set(epoch)) == STEPS_PER_EPOCH * BATCH_SIZE == len(epoch)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_an_epoch_of_whole_batches_visits_every_example(dataset):
    even = take(dataset, np.arange(20))
    seen = [row for batch in batches(even, 5, seed=3, num_steps=4) for row in rows_of(batch)]
    assert sorted(seen) == list(range(20))
    assert seen != sorted(seen)


@pytest.mark.parametrize("start", [1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 2, 10])
def test_starting_at_a_step_gives_the_tail_of_the_whole_run(dataset, start):
    whole = list(batches(dataset, BATCH_SIZE, seed=1, num_steps=10))
    tail = list(batches(dataset, BATCH_SIZE, seed=1, num_steps=10, start=start))
    assert len(tail) == 10 - start
    chex.assert_trees_all_equal(tail, whole[start:])


def test_a_saved_iterator_continues_where_it_was(dataset):
    pipeline = batches(dataset, BATCH_SIZE, seed=1, num_steps=8)
    whole = list(pipeline)
    iterator = iter(pipeline)
    for _ in range(3):
        next(iterator)
    restored = iter(pipeline)
    restored.set_state(json.loads(json.dumps(iterator.get_state())))
    chex.assert_trees_all_equal(list(restored), whole[3:])


def test_without_an_end_the_steps_are_those_of_a_run_with_one(dataset):
    endless = batches(dataset, BATCH_SIZE, seed=1, start=3)
    bounded = batches(dataset, BATCH_SIZE, seed=1, num_steps=20, start=3)
    chex.assert_trees_all_equal(list(itertools.islice(endless, 17)), list(bounded))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_shards_put_together_are_the_batches_of_a_single_process(dataset, count):
    whole = list(batches(dataset, 8, seed=2, num_steps=5))
    shards = [
        list(batches(dataset, 8, seed=2, num_steps=5, shard=Shard(index, count)))
        for index in range(count)
    ]
    for step, parts in enumerate(zip(*shards, strict=True)):
        assert [len(part.labels) for part in parts] == [8 // count] * count
        assert np.concatenate([rows_of(part) for part in parts]).tolist() == rows_of(whole[step])
        words = np.concatenate([part.data["word"] for part in parts])
        np.testing.assert_array_equal(words, whole[step].data["word"])


def test_seeds_give_different_orders(dataset):
    orders = {
        tuple(rows_of(next(iter(batches(dataset, BATCH_SIZE, seed=seed, num_steps=1)))))
        for seed in range(10)
    }
    assert len(orders) == 10


def test_all_arrays_of_a_batch_show_the_same_examples(dataset):
    for batch in batches(dataset, BATCH_SIZE, seed=0, num_steps=9):
        rows = np.array(rows_of(batch))
        np.testing.assert_array_equal(batch.data["image"][:, 1, 2], rows)
        np.testing.assert_array_equal(batch.data["word"], 10 * rows[:, None])
        np.testing.assert_array_equal(batch.mask["image"], rows % 2 == 0)
        np.testing.assert_array_equal(batch.mask["word"], rows % 3 == 0)
        np.testing.assert_array_equal(batch.weight, rows / 2)
        assert batch.data["image"].dtype == np.float32


def test_unlabelled_complete_data_stays_so():
    dataset = MultimodalArrays({"x": np.arange(4.0)})
    (batch,) = batches(dataset, 4, seed=0, num_steps=1)
    assert batch.labels is None
    assert batch.mask is None
    assert batch.weight is None


def test_bytes_stay_bytes():
    dataset = MultimodalArrays({"image": np.zeros((4, 2, 2, 3), np.uint8)})
    (batch,) = batches(dataset, 2, seed=0, num_steps=1)
    assert batch.data["image"].dtype == np.uint8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 24}, "batch_size is 24"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 6, "shard": Shard(0, 4)}, "batch_size is 6"),
        ({"shard": Shard(2, 2)}, "shard.index is 2"),
        ({"shard": Shard(-1, 2)}, "shard.index is -1"),
        ({"shard": Shard(0, 0)}, "shard.index is 0"),
        ({"start": 4}, "start is 4"),
        ({"start": -1}, "start is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_out_of_range_are_refused(dataset, settings, message):
    with pytest.raises(ValueError, match=message):
        batches(dataset, **{"batch_size": 2, "seed": 0, "num_steps": 3, **settings})
