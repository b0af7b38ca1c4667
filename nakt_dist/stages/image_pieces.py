"""A network is asked about images, which any number of processes share in pieces."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from nakt_dist.config import EvaluateConfig, PredictConfig, as_plain
from nakt_dist.loading.batches import Batch, read_ahead
from nakt_dist.loading.images import Images
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.records.run_record import RECORD_NAME, RunRecord, Stopwatch, read_record
from nakt_dist.runtime.devices import explain_full_memory, peak_memory_bytes
from nakt_dist.runtime.processes import own_cores, process_place, say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.shared_job import Done, SharedJob

_IMAGES_PER_PIECE = 64


class ImagePieces(SharedJob[RunRecord]):
    """What one network says of some images; a piece is some of them.

    Args:
        images: those that are read.
        device: that the network works on; it is not there before ``do_pieces``.
        decides: what decides the result besides the network, its input and ``batch_size``.
    """

    written_last = RECORD_NAME
    config: EvaluateConfig | PredictConfig

    def __init__(
        self,
        config: EvaluateConfig | PredictConfig,
        trained: TrainedNetwork,
        images: Images,
        device: torch.device,
        decides: Mapping[str, Any],
    ) -> None:
        self.config, self.trained, self.images, self.device = config, trained, images, device
        identity = {**trained.identity, "batch_size": config.batch_size, **decides}
        super().__init__(config.output, identity, -(-len(images) // _IMAGES_PER_PIECE))

    def read(self) -> tuple[Mapping[str, Any], RunRecord]:
        """Reads the record, whose inputs are the identity."""
        record = read_record(self.output / RECORD_NAME)
        return record.inputs, record

    def images_of(self, piece: int) -> range:
        """Returns the numbers of a piece's images."""
        first = piece * _IMAGES_PER_PIECE
        return range(first, min(first + _IMAGES_PER_PIECE, len(self.images)))

    def batches(self, pieces: Iterable[int]) -> Generator[tuple[int, range, Batch], None, None]:
        """Yields each batch of pieces, none across pieces: piece, numbers of its images, pixels."""
        taken: deque[tuple[int, range]] = deque()
        read = read_ahead(self.images, self._numbers(pieces, taken), own_cores())
        with contextlib.closing(read) as batches:
            for batch in batches:
                yield (*taken.popleft(), batch)

    def _numbers(
        self, pieces: Iterable[int], taken: deque[tuple[int, range]]
    ) -> Iterator[Sequence[int]]:
        size = self.config.batch_size
        for piece in pieces:
            numbers = self.images_of(piece)
            for start in range(0, len(numbers), size):
                taken.append((piece, numbers[start : start + size]))
                yield taken[-1][1]

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Surrounds what the network computes; where memory is full, says what to do."""
        advice = (
            f"Lower batch_size (now {self.config.batch_size}), into another --output since it "
            "decides the last digits, or set --device cpu"
        )
        with torch.inference_mode(), explain_full_memory(str(self.output), advice):
            yield

    def do_pieces(
        self,
        do: Callable[[Iterator[int]], Done],
        put_together: Callable[[Mapping[str, float]], RunRecord],
    ) -> RunRecord:
        """Does this process's pieces; whoever finds all of them done puts them together.

        Args:
            do: as for ``work``.
            put_together: writes the record, which holds the speed that it is given.
        """
        images, doing = 0, Stopwatch()
        with progress_bar(f"{self.stage} {self.output.name}", len(self.images)) as advance:
            for piece in self.work(do):
                images += len(self.images_of(piece))
                advance(len(self.images_of(piece)))
        speed = doing.speed(images)
        if images:
            gpu = self.device if self.device.type == "cuda" else None
            speed["peak_memory_bytes"] = peak_memory_bytes(gpu)
        record = self.finalise(lambda: put_together(speed))
        if record is not None:
            return record
        rank = process_place().rank
        say(f"{self.stage}: process {rank} is done; others still work on {self.output}")
        return RunRecord(self.stage, self.output.name, as_plain(self.config), self.identity)
