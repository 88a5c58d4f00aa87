"""Finds hyperparameters for `fashion_keras`; the two meet in `results/search/best_config.json`."""
