"""The report command: a folder of results becomes one HTML page."""
