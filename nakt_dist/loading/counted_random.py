"""Random numbers that belong to a counter: numpy's Philox for many counters in one go."""

import numpy as np

_MULTIPLIERS = np.array([[0xD2E7470EE14C6C93], [0xCA5A826395121157]], np.uint64)
_WEYL = np.array([[0x9E3779B97F4A7C15], [0xBB67AE8584CAA73B]], np.uint64)
_ROUNDS = 10
_WORDS = 4
_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)
_BOTTOM, _TOP = _MULTIPLIERS & _LOW, _MULTIPLIERS >> _HALF


def uniform_rows(seed: int, epoch: int, numbers: np.ndarray, count: int) -> np.ndarray:
    """Returns numbers in [0, 1) that depend on seed, epoch and sample alone.

    A row is, bit for bit, what numpy's own ``Philox(key=[seed, epoch], counter=[0, 0, 1,
    number])`` gives its generator; one of those for each sample takes longer than to draw from it.

    Args:
        seed, epoch: in [0, 2⁶⁴).
        numbers: int (N,), sample numbers, 0 or more.
        count: a multiple of 4.

    Returns:
        float64 (N, count).
    """
    blocks = count // _WORDS
    # Numpy raises the counter before it draws: a sample's first block is number 1.
    first = np.tile(np.arange(1, blocks + 1, dtype=np.uint64), len(numbers))
    even = np.stack([first, np.ones_like(first)])
    odd = np.stack([np.zeros_like(first), np.repeat(numbers.astype(np.uint64), blocks)])
    key = np.array([[seed], [epoch]], np.uint64)
    for _ in range(_ROUNDS):
        high, low = _products(even)
        even, odd = high[::-1] ^ odd ^ key, low[::-1]
        key = key + _WEYL
    bits = np.stack([even[0], odd[0], even[1], odd[1]], axis=1).reshape(len(numbers), count)
    return (bits >> np.uint64(11)) * 2.0**-53


def _products(factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """High and low 64 bits of Philox's multipliers times factors, each uint64 (2, M)."""
    bottom, top = factors & _LOW, factors >> _HALF
    middle = _TOP * bottom + (_BOTTOM * bottom >> _HALF)
    carried = (middle & _LOW) + _BOTTOM * top
    return _TOP * top + (middle >> _HALF) + (carried >> _HALF), _MULTIPLIERS * factors
