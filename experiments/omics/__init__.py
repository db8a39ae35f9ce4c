"""A study of tables: classes and missing views, predicted by an MMVAE and by simpler methods."""
