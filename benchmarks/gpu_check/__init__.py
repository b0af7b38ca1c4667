"""What ``launch/gpu_check.sh`` runs: every path that only a GPU takes, in one go and one JSON."""
