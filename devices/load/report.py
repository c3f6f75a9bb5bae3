"""The last word on a load: a table and bars for a person, or JSON for a program. Says when the rate was not reached."""

from __future__ import annotations

import json
from collections.abc import Iterator

from devices.load.histogram import Histogram
from devices.load.plan import Plan
from devices.load.tally import LAST_S, Stage, Tally

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}

REACHED_FROM = 0.99
"""Of the wanted rate: what is on the way at the end, and the grain of a clock, must not count as a failure."""

BUSY_FROM = 0.85
"""Of one processor: from here on it is this process that cannot do more."""

BAR_CHARS = 40


def as_text(tally: Tally, plan: Plan) -> str:
    """Lines for a terminal."""
    stages = _stages(tally, plan)
    table = _table(stages, tally.span_s, timed=plan.rate is not None)
    return "\n".join([verdict(tally, plan), "", *table, *_bars(stages), *_remarks(tally, plan)])


def as_json(tally: Tally, plan: Plan) -> str:
    """One object; durations are in milliseconds."""
    rate, name = _reached(tally, plan)
    told = {
        "wanted_rate": plan.rate,
        "reached_rate": round(rate, 1),
        "measured_by": name,
        "reached": _is_reached(tally, plan),
        "seconds": round(tally.span_s, 3),
        "connections": plan.connections,
        "devices": plan.devices,
        "qos": plan.qos,
        "size": plan.size,
        "planned": plan.planned,
        **{name: _numbers(stage, tally.span_s) for name, stage in _stages(tally, plan).items()},
        "reconnects": tally.reconnects,
        "refused": tally.refused,
        "rejected": tally.rejected,
        "taken_seconds": round(tally.taken_s, 3),
        "untaken_connections": tally.untaken,
        "unsent": tally.unsent,
        "unanswered": tally.unanswered,
        "unreceipted": tally.unreceipted,
        "processor_share": round(_busy(tally), 3),
        "trouble": tally.trouble,
    }
    return json.dumps(told)


def verdict(tally: Tally, plan: Plan) -> str:
    """Whether the load was what it was meant to be, and if not, by how much and for what."""
    rate, name = _reached(tally, plan)
    load = f"{tally.span_s:.1f} s at QoS {plan.qos} over {_counted(plan.connections, 'connection')}"
    if plan.rate is None:
        return f"as fast as it goes: {rate:,.0f} messages/s {name}, {load}"
    wanted = f"{plan.rate:,.10g} messages/s wanted for {load}"
    if _is_reached(tally, plan):
        return f"{wanted}: reached"
    short = 100 * (1 - rate / plan.rate)
    busy = _busy(tally)
    why = (
        f"this process was the limit, busy for {100 * busy:.0f} % of the time: run several"
        if busy >= BUSY_FROM
        else f"it was not this process that held it up, which was busy for {100 * busy:.0f} % of the time"
    )
    return f"{wanted}: NOT reached, {rate:,.0f}/s {name}, {short:.1f} % short; {why}"


def _stages(tally: Tally, plan: Plan) -> dict[str, Stage]:
    """How far messages were to come, in order."""
    stages = {"sent": tally.sent}
    if plan.qos:
        stages["acknowledged"] = tally.acknowledged
    if plan.receipts:
        stages["receipted"] = tally.receipted
    return stages


def _reached(tally: Tally, plan: Plan) -> tuple[float, str]:
    """The rate of the slowest stage, and its name: what is sent and not answered has not been taken."""
    rates = [(stage.rate(tally.span_s), name) for name, stage in _stages(tally, plan).items()]
    if len(rates) == 1:
        # Sockets hold megabytes: 50 connections took a million messages that the broker had not seen.
        return tally.sent.count / max(tally.span_s, tally.taken_s - LAST_S, 1e-6), "read by the broker"
    return min(rates)


def _is_reached(tally: Tally, plan: Plan) -> bool:
    if plan.rate is None:
        return True
    # Of a short load at a low rate the whole messages count: three in ten seconds are what 0.3 a second gives.
    whole = plan.due_in_all(int(tally.span_s * 1e6)) / max(tally.span_s, 1e-6)
    return _reached(tally, plan)[0] >= REACHED_FROM * min(plan.rate, whole)


def _busy(tally: Tally) -> float:
    return tally.processor_s / tally.span_s if tally.span_s else 0.0


def _numbers(stage: Stage, span_s: float) -> dict[str, float]:
    took = {name: round(stage.durations.percentile_us(share) / 1000, 3) for name, share in SHARES.items()}
    return {
        "messages": stage.count,
        "rate": round(stage.rate(span_s), 1),
        **{f"{name}_ms": value for name, value in took.items()},
        "max_ms": round(stage.durations.longest_us / 1000, 3),
    }


def _table(stages: dict[str, Stage], span_s: float, *, timed: bool) -> Iterator[str]:
    """What came how far, and how long after it was due; without a rate that is when it was sent."""
    yield f"{'':<14}{'messages':>14}{'per second':>12}" + "".join(f"{name:>10}" for name in (*SHARES, "max"))
    for name, stage in stages.items():
        took = [stage.durations.percentile_us(share) for share in SHARES.values()] + [stage.durations.longest_us]
        told = [duration(us) if stage.count and (timed or name != "sent") else "—" for us in took]
        yield f"{name:<14}{stage.count:>14,}{stage.rate(span_s):>12,.0f}" + "".join(f"{one:>10}" for one in told)


def _bars(stages: dict[str, Stage]) -> Iterator[str]:
    """How the durations of the answers are spread, in steps of 1, 2, 5, 10 and so on."""
    for name, stage in stages.items():
        if name == "sent" or not stage.count:
            continue
        yield f"\nfrom the moment a message was due until it was {name}"
        yield from _bars_of(stage.durations)


def _bars_of(durations: Histogram) -> Iterator[str]:
    bounds = [factor * 10**power for power in range(1, 9) for factor in (1, 2, 5)]
    shares = durations.shares(bounds)
    wanted = [at for at, share in enumerate(shares) if share > 0]
    for at in range(min(wanted, default=0), max(wanted, default=-1) + 1):
        full = shares[at] / max(shares) * BAR_CHARS
        bar = "█" * int(full) + "▏▎▍▌▋▊▉█"[int(full % 1 * 8)]
        yield f"  up to {duration(bounds[at]):>9}  {100 * shares[at]:6.2f} %  {bar}"


def _remarks(tally: Tally, plan: Plan) -> Iterator[str]:
    """What did not go as it should."""
    remarks = [
        (tally.reconnects, f"{_counted(tally.reconnects, 'reconnect')}: {tally.trouble}"),
        (tally.refused, f"{_counted(tally.refused, 'message')} refused: {tally.trouble}"),
        (tally.unsent, f"{_counted(tally.unsent, 'message')} due and never sent: there was no room"),
        (tally.unanswered, f"{_counted(tally.unanswered, 'message')} never acknowledged"),
        (tally.unreceipted, f"{_counted(tally.unreceipted, 'message')} never receipted: {_no_receipt(tally)}"),
        (tally.rejected, f"{_counted(tally.rejected, 'message')} rejected by the gateway: {tally.rejection}"),
    ]
    told = [text for count, text in remarks if count]
    if tally.untaken:
        told.append(
            f"after {tally.taken_s:.1f} s the broker had not read all of {_counted(tally.untaken, 'connection')}"
        )
    elif plan.qos == 0 and not plan.receipts:
        told.append(f"at QoS 0 nobody answers; the broker had read all after {tally.taken_s:.1f} s")
    if told:
        yield ""
        yield from told


def _no_receipt(tally: Tally) -> str:
    return "the gateway is behind" if tally.receipted.count else "is a gateway there, with receipts.prefix as it comes?"


def duration(us: int) -> str:
    """Two digits and a unit: 0.35 ms, 12 ms, 1.2 s."""
    if us < 1_000:
        return f"{us} µs"
    if us < 1_000_000:
        return f"{us / 1_000:.2g} ms" if us < 99_500 else f"{us / 1_000:.0f} ms"
    return f"{us / 1e6:.2g} s" if us < 99_500_000 else f"{us / 1e6:,.0f} s"


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
