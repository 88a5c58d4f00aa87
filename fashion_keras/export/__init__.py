"""The export command: a saved classifier for other runtimes."""
