"""Data sets, columns in files, batches, and missing modalities.

- Data sets: ``polydigits`` is made from installed files. ``mnist``, ``fashion_mnist`` and ``svhn``
  are read from a folder or downloaded. ``mnist_svhn``, ``polymnist`` and ``cub`` are read from a
  folder. Each is a function that returns splits of ``MultimodalArrays``.
- Columns: any object with ``shape``, ``dtype`` and slices of rows is a ``Column`` (NumPy arrays,
  ``np.memmap``, h5py data sets). ``ImageFiles`` reads image files, ``IndexedColumn`` repeats rows.
- Batches: ``batches`` shuffles, ``eval_batches`` keeps the order, ``prefetch_to_device`` works
  ahead, ``take`` picks examples.
- Missing modalities and entries: ``incomplete_batch``, ``mask_nan``, ``missing_at_random``,
  ``missing_by_label``.
- Pairs of examples by label: ``pair_by_label``, ``pairs_digest``.
"""

from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.data.arrays import num_examples, take
from mmvae_jax.data.batching import EvalBatches, Shard, batches, eval_batches
from mmvae_jax.data.columns import Column, IndexedColumn, LazyColumn, read_rows
from mmvae_jax.data.datasets.cub import CUB, cub, cub_vocabulary, decode_captions
from mmvae_jax.data.datasets.digit_words import decode_words, digit_words, encode_words
from mmvae_jax.data.datasets.files import Splits
from mmvae_jax.data.datasets.mnist import fashion_mnist, mnist
from mmvae_jax.data.datasets.mnist_svhn import mnist_svhn
from mmvae_jax.data.datasets.polydigits import PolyDigits, polydigits
from mmvae_jax.data.datasets.polymnist import polymnist
from mmvae_jax.data.datasets.svhn import svhn
from mmvae_jax.data.image_files import ImageFiles
from mmvae_jax.data.incomplete import (
    incomplete_batch,
    mask_nan,
    missing_at_random,
    missing_by_label,
)
from mmvae_jax.data.pairing import pair_by_label, pairs_digest
from mmvae_jax.data.prefetch import Prefetch, Resumable, prefetch_to_device

__all__ = [
    "CUB",
    "Column",
    "EvalBatches",
    "ImageFiles",
    "IndexedColumn",
    "LazyColumn",
    "MultimodalArrays",
    "PolyDigits",
    "Prefetch",
    "Resumable",
    "Shard",
    "Splits",
    "batches",
    "cub",
    "cub_vocabulary",
    "decode_captions",
    "decode_words",
    "digit_words",
    "encode_words",
    "eval_batches",
    "fashion_mnist",
    "incomplete_batch",
    "mask_nan",
    "missing_at_random",
    "missing_by_label",
    "mnist",
    "mnist_svhn",
    "num_examples",
    "pair_by_label",
    "pairs_digest",
    "polydigits",
    "polymnist",
    "prefetch_to_device",
    "read_rows",
    "svhn",
    "take",
]
