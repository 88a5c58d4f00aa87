"""The predict command: any photos to rows of predictions."""
