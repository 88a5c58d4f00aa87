"""Proves that a saved file gives the same probabilities wherever Keras runs."""
