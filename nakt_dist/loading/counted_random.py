"""Random numbers that belong to a counter: one generator, set to each counter in turn."""

import numpy as np


def uniform_rows(seed: int, epoch: int | np.ndarray, numbers: np.ndarray, count: int) -> np.ndarray:
    """Returns numbers in [0, 1) that depend on seed, epoch and sample alone.

    A row is what numpy's ``Philox(key=[seed, epoch], counter=[0, 0, 1, number])`` gives. To make
    such a generator for each sample takes four times as long as to set one; all rounds of Philox
    on arrays pay from some hundred samples on, and take seven times as long for a batch of 4.

    Args:
        seed: in [0, 2⁶⁴).
        epoch: likewise, one for all or int (N,).
        numbers: int (N,), sample numbers, 0 or more.
        count: numbers for each sample.

    Returns:
        float64 (N, count).
    """
    bits = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=[0, 0, 1, 0])
    generator, state = np.random.Generator(bits), bits.state
    key, counter = state["state"]["key"], state["state"]["counter"]
    rows = np.empty((len(numbers), count))
    epochs = np.broadcast_to(epoch, len(numbers))
    for row, visit, number in zip(rows, epochs.tolist(), numbers.tolist(), strict=True):
        key[1], counter[3] = visit, number
        bits.state = state
        generator.random(out=row)
    return rows
