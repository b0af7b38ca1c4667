"""Many runs as one study: a graph made from paths, run here or on a cluster, watched from files."""
