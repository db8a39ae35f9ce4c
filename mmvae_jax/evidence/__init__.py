"""Log-likelihoods of a model's data (its evidence), estimated by sampling."""
