"""Photos in folders become checked, split, laid-out photos, and these become batches."""
