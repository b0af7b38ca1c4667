"""From shards to batches: the order of samples, decoding, augmentation."""
