"""Names of digits as one-hot characters."""

import chex
import numpy as np

from mmvae_jax.data import decode_words, digit_words, encode_words
from mmvae_jax.data.datasets.digit_words import ALPHABET, WORDS


def test_words_are_at_the_published_places_and_each_is_equally_likely():
    labels = np.repeat(np.arange(10, dtype=np.int32), 3000)
    words = digit_words(labels, np.random.default_rng(0))
    chex.assert_shape(words[:2], (2, 8, 71))
    assert len(ALPHABET) == 71
    assert words.dtype == np.float32
    for label, word in enumerate(WORDS):
        codes = words[labels == label].argmax(-1)
        places, counts = np.unique((codes == 0).argmin(axis=1), return_counts=True)
        assert places.tolist() == [*range(8 - len(word))]
        share = counts / 3000
        # Five standard errors of a share of 3,000 draws.
        np.testing.assert_allclose(share, 1 / len(places), atol=5 * np.sqrt(0.25 / 3000))
        assert (codes[:, -1] == 0).all()
    assert (words[:].sum(-1) == 1).all()


def test_words_round_trip_from_every_position():
    labels = np.repeat(np.arange(10), 50)
    words = encode_words(labels, np.random.default_rng(0))
    chex.assert_shape(words, (500, 8, 71))
    np.testing.assert_array_equal(words.sum(axis=-1), 1)
    assert decode_words(words) == [WORDS[c] for c in labels]
    begins = words.argmax(axis=-1).astype(bool).argmax(axis=-1)
    for c, word in enumerate(WORDS):
        assert set(begins[labels == c]) == set(range(8 - len(word) + 1))


def test_words_decode_from_logits():
    words = encode_words(np.array([0, 9]), np.random.default_rng(0))
    assert decode_words(20 * words - 7) == ["zero", "nine"]


def test_the_alphabet_has_71_different_characters():
    assert len(set(ALPHABET)) == len(ALPHABET) == 71
