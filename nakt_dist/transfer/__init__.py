"""What the papers propose: ensembles of teachers, exclusion, and the losses."""
