"""Disturbs the commands in every way a machine can, and compares with quiet runs."""
