"""The web service: what `python -m fashion_keras.serve` runs."""
