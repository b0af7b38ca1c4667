"""The contract on disk: tars, a manifest that makes them a dataset, and their readers."""
