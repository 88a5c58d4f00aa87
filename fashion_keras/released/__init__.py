"""The released classifier, `fashion.keras`, as package data."""
