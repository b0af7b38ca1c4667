"""The verbs of the command line: each a module with ``run(config) -> RunRecord``."""
