"""Proves that a saved file gives the same probabilities wherever Keras runs.

`environments` makes a fresh environment for each backend and runs `inside` in it; `__main__`
compares what was found.
"""
