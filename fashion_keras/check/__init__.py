"""The check command: what is wrong with a data set."""
