"""Claims about the seam between history and the live stream: followed from any moment on, each position comes once.

`python -m tests.crash.test_seam 1_000_000 [FOLLOWERS]` is the long proof.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import msgspec

from storage.event import Event, Message
from storage.filters import Filters
from storage.history import Reader
from storage.store import Store, StoreOptions

ROOT = Path(__file__).resolve().parents[2]
SHORT, FOLLOWERS = 60_000, 6


class Seen(msgspec.Struct, frozen=True):
    """What a follower saw: positions above where it began, in rising order, each once; or `wrong`, the first fault."""

    began_after: int
    positions: int
    live: int
    last: int
    wrong: str = ""


def test_followers_that_begin_at_any_moment_see_each_position_once(tmp_path: Path) -> None:
    prove(tmp_path, SHORT, FOLLOWERS)


def prove(folder: Path, events: int, followers: int) -> list[Seen]:
    """Append at full rate while followers start at random moments, each a process; compare with what is there."""
    store, random = folder / "amber.db", Random(events)
    Store(store, StoreOptions(free_floor_bytes=0)).close()
    with ExitStack() as stack:
        writer = stack.enter_context(process("write", store, events))
        running = []
        with Reader(store) as reader:
            for number in range(followers):
                begin_at = events * number // followers * 10_000
                while reader.position() < begin_at:
                    assert writer.poll() is None
                after = random.choice((0, reader.position(), random.randrange(1 + reader.position())))
                running.append(stack.enter_context(process("follow", store, events, after)))
        found = [msgspec.json.decode(follower.communicate(timeout=600)[0], type=Seen) for follower in running]
        assert writer.wait() == 0
    for seen in found:
        assert not seen.wrong, seen
        assert seen.last == events * 10_000, seen
        assert seen.positions == expected(store, seen.began_after), seen
    assert any(seen.live for seen in found), "no follower was there before the end"
    return found


def expected(store: Path, after: int) -> int:
    """How many positions there are, counted in one read of another kind."""
    with Reader(store) as reader:
        return sum(map(len, reader.pages(Filters(after=after), page_events=20_000)))


@contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-m", "tests.crash.test_seam", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def write(path: Path, events: int) -> None:
    """Batches of all sizes, over many segments; messages of no event, of one and of several. The last has one."""
    random, number = Random(events), 0
    store = Store(path, StoreOptions(segment_events=max(events // 9, 1_000), free_floor_bytes=0))
    while number < events:
        size = min(random.choice((1, 7, 100, 2_000)), events - number)
        store.append([entry(number + n, last=number + n == events - 1) for n in range(size)], 1)
        number += size
    store.close()


def entry(n: int, *, last: bool) -> tuple[Message, list[Event]]:
    at = 1_795_345_200_000_000 + n
    count = 1 if last else (1, 1, 1, 0, 3)[n % 5]
    events = [Event(f"d{n % 100}", "measurement", "json", at, {"n": n}) for _ in range(count)]
    return Message(f"t/{n % 100}", b"", 1, retain=False, received_at=at), events


def follow(path: Path, events: int, after: int) -> Seen:
    """Until the last event: its position is known beforehand."""
    last, positions, live = after, 0, 0
    began_s, began_at = time.monotonic(), 0
    with Reader(path) as reader:
        began_at = reader.position()
        for page in reader.follow(Filters(after=after, until_position=events * 10_000)):
            for event in page:
                if event.id <= last:
                    return Seen(after, positions, live, event.id, f"{event.id} came after {last}")
                last, positions = event.id, positions + 1
                live += event.id > began_at
            assert time.monotonic() - began_s < 600
    return Seen(after, positions, live, last)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["write", path, events]:
            write(Path(path), int(events))
        case ["follow", path, events, after]:
            print(msgspec.json.encode(follow(Path(path), int(events), int(after))).decode())
        case _:
            count, followers = (*map(int, arguments), 20)[:2]
            with tempfile.TemporaryDirectory(prefix="amber-seam-") as folder:
                for seen in prove(Path(folder), count, followers):
                    print(seen)
            print(f"{count:,} messages, {followers} followers: each position once")


if __name__ == "__main__":
    main(sys.argv[1:])
