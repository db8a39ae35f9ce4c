"""Tables: a user's data, one table per modality, and their conversion to the model's inputs."""

from mmvae_jax.tables.reading import read_tables
from mmvae_jax.tables.tables import Table, Tables

__all__ = ["Table", "Tables", "read_tables"]
