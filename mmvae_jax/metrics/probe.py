"""A linear probe: how much of the class can be read off the latent space."""

import numpy as np
from jaxtyping import Array, Float, Int


def latent_probe(
    train_z: Float[Array | np.ndarray, "train d"],
    train_labels: Int[Array | np.ndarray, " train"],
    test_z: Float[Array | np.ndarray, "test d"],
    test_labels: Int[Array | np.ndarray, " test"],
) -> float:
    """Returns the accuracy with which a linear classifier tells unseen latents apart.

    Protocol: every latent axis is standardised by its mean and standard deviation over
    `train_z`; a multinomial logistic regression with L2 penalty (scikit-learn's
    `LogisticRegression`, C = 1, L-BFGS until convergence) is fitted to `train_z`; its accuracy on
    `test_z` is returned, in 0 to 1.

    Args:
        train_z: latents of training examples; posterior means make the probe repeatable.
        train_labels: their classes.
        test_z: latents of other examples.
        test_labels: their classes.

    Raises:
        ValueError: if latents hold NaN or infinity, or latents and labels differ in number.
        ImportError: if scikit-learn is missing.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(
            "the latent probe is scikit-learn's: pip install 'mmvae_jax[experiments]'"
        ) from error
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(np.asarray(train_z), np.asarray(train_labels))
    return float(probe.score(np.asarray(test_z), np.asarray(test_labels)))
