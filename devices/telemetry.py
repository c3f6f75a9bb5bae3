"""All that a device says of what it measures, one message after another: measured, misread, encoded, misdelivered.

Follows from the fleet alone: the same seed and start give the same bytes, whatever the network does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from random import Random

from devices.dialects import Dialect
from devices.faults.connecting import marked
from devices.faults.measuring import misread
from devices.faults.sending import misdeliver
from devices.fleet import Device, Fleet, boot_id
from devices.outgoing import Outgoing, Sample
from devices.pace import held, measured, times


def telemetry(device: Device, fleet: Fleet, dialect: Dialect) -> Iterator[Outgoing]:
    """For ever: the messages of a device, in the order in which they are due."""
    taken = marked(misread(samples(device, fleet), device, fleet), device, fleet)
    return misdeliver(taken, partial(outgoing, dialect), device)


def samples(device: Device, fleet: Fleet) -> Iterator[Sample]:
    """For ever: what the device would measure if nothing ever went wrong."""
    boot, pace = boot_id(device, fleet), device.group.pace
    due, waited = (of(pace, fleet.start_us, device.seed) for of in (times, held))
    readings = device.group.signal(Random(device.seed), measured(pace, fleet.start_us, device.seed))
    for seq, (time, held_us, values) in enumerate(zip(due, waited, readings, strict=False)):
        yield Sample(boot, seq, time, time - held_us, values, held_us=held_us)


def outgoing(dialect: Dialect, samples: Iterable[Sample]) -> Iterator[Outgoing]:
    """What a dialect makes of samples."""
    for sample in samples:
        for part, publication in enumerate(dialect.telemetry(sample)):
            yield Outgoing(
                sample.boot,
                sample.seq,
                sample.due_us,
                sample.observed_at,
                publication,
                part,
                identified=dialect.identified,
                faults=sample.faults,
            )
