"""``nakt watch``: one page, or a table, of runs while they go on."""

import threading
import time
from pathlib import Path

from nakt_dist.config import WatchConfig, as_plain
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.key_file import make_key, read_key
from nakt_dist.runtime.processes import require_one_process
from nakt_dist.stages.opening import NotOpened, Opening
from nakt_dist.studies.queue import SlurmQueue
from nakt_dist.watch.collector import Collector
from nakt_dist.watch.summary import summarise
from nakt_dist.watch.terminal import print_table

KEY_PATH = Path("~/.cache/nakt_dist/watch.key")
"""The same for each start, so that an open page and its links go on."""


def run(config: WatchConfig) -> RunRecord:
    """Serves the page until Ctrl-C, or prints the table and ends.

    Raises:
        ConfigurationError: it was started as several processes, or others may read the key.
        DatasetError: a folder does not exist.
        NaktError: no port is free.
    """
    require_one_process("watch")
    stopwatch = Stopwatch()
    collector = plan(config, Opening())
    if config.once:
        _print(config, collector)
    else:
        _serve(config, collector)
    return RunRecord(
        stage="watch",
        name=collector.folders[0].name,
        config=as_plain(config),
        counts={"runs": len(collector.snapshots())},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def plan(config: WatchConfig, opening: Opening) -> Collector:
    """Looks whether the folders are there."""
    with opening.part("runs"):
        queue = SlurmQueue()
        return Collector(config.runs, queue.wait if config.once else queue.jobs)
    raise NotOpened


def _print(config: WatchConfig, collector: Collector) -> None:
    collector.refresh(whole=True)
    now, runs = time.time(), collector.snapshots()
    summary = summarise(runs, now, config.price_per_process_hour)
    print_table(collector, runs, summary, now, config.currency)


def _serve(config: WatchConfig, collector: Collector) -> None:
    from nakt_dist.watch.server import WatchServer  # and all that its routes need

    path = KEY_PATH.expanduser()
    if config.token:
        make_key(path)
    token = read_key(path).hex() if config.token else None
    stop = threading.Event()
    with WatchServer(config, collector, token) as server:
        follower = threading.Thread(
            target=collector.follow, args=(config.refresh_seconds, stop), daemon=True
        )
        follower.start()
        print(f"watching {', '.join(config.runs)} at {server.url}  (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            stop.set()
