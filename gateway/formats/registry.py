"""Chooses the format of each message, and lets no format stop the process."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

import msgspec

from gateway.formats import json, plain, rules, texts
from gateway.formats.body import Body
from gateway.formats.families import SPECIFIC
from gateway.formats.fitness import unfit
from gateway.formats.format import Format, Unreadable
from gateway.formats.learned import Learned
from gateway.formats.options import Options
from gateway.formats.patience import Patience, TooSlow
from gateway.formats.quick import Quick
from gateway.formats.routes import Route, Routes
from gateway.formats.rules import Rule
from gateway.formats.signatures import Signatures
from storage.event import Event, Fact, Lessons, Message, Outcome, Rejection

GENERIC: tuple[Format, ...] = (json.FORMAT, plain.FORMAT)
"""What is left goes to them: any JSON, then any text."""

IGNORED: Outcome = Rejection("a rule says to ignore it", "ignore")
"""What becomes of a message that a rule says not to keep."""

MOST_INSIDE = 3
"""How often a payload may be packed in another."""


class Trial(msgspec.Struct, frozen=True):
    """A row that a message was shown to: by which sign, and what came of it; None where it did not fit."""

    format: str
    sign: str
    outcome: Outcome | None


class Formats:
    """Reads messages into events; remembers topics, shapes and lessons, within bounds, and no message."""

    def __init__(
        self,
        options: Options | None = None,
        plugins: Sequence[Format] = (),
        *,
        specific: Sequence[Format] = SPECIFIC,
        rules: Sequence[Rule] = (),
        facts: Iterable[Fact] = (),
    ) -> None:
        self._options = options or Options()
        specific = (*plugins, *specific)
        self._all = (*specific, *GENERIC)
        self._rules = rules
        self._signatures = Signatures(specific)
        self._by_lesson = tuple(row for row in specific if row.learned_topics)
        self._check_rules()
        self._routes = Routes(specific, self._options, rules)
        self._learned = Learned(self._options, facts)
        self._patience = Patience(self._options.message_ms)
        self._quick = Quick(self._options, self._routes, self._signatures, self._learned.speaks_of)

    def read(self, message: Message) -> Outcome:
        """The events of one message, or why there are none; never raises for what a message holds."""
        return self._quick.read(message) or self.read_in_full(message)

    def read_all(self, messages: Iterable[Message]) -> list[Outcome]:
        """The outcomes of many messages, in their order."""
        quick, in_full = self._quick.read, self.read_in_full
        return [quick(message) or in_full(message) for message in messages]

    def read_in_full(self, message: Message) -> Outcome:
        """What `read` gives, without its short cut for common JSON."""
        return self._read(message, [], teach=True)

    def read_again(self, message: Message) -> Outcome:
        """What an earlier message becomes with all that was learned since; it teaches nothing any more."""
        return self._read(message, [], teach=False)

    def trials(self, message: Message) -> tuple[Outcome, list[Trial]]:
        """What becomes of a message, with every row that was asked; nothing is learned."""
        trials: list[Trial] = []
        return self._read(message, trials, teach=False), trials

    def remember(self, facts: Iterable[Fact]) -> None:
        """Know what the log has kept of earlier lessons."""
        self._learned.remember(facts)

    def take_lessons(self, batch: Sequence[Message] = ()) -> Lessons:
        """What the messages of a batch taught since the last call: to be kept with them."""
        return self._learned.take(batch)

    @property
    def names(self) -> list[str]:
        """Of all formats, in the order in which they are asked."""
        return list(dict.fromkeys(row.name for row in self._all))

    def rule_for(self, topic: str) -> Rule | None:
        """The user's rule for a topic: the first that takes it."""
        return self._routes[topic].rule

    def _read(self, message: Message, trials: list[Trial], *, teach: bool) -> Outcome:
        size, most = len(message.payload), self._options.payload_bytes
        if size > most:
            return Rejection(f"a payload of {size} bytes, over the limit of {most} (payload_bytes)")
        route = self._routes[message.topic]
        if route.rule is None:
            return self._tried(message, route, self._body(message.payload, message, route, 0), trials, teach=teach)
        return self._ruled(message, route, route.rule, trials, teach=teach)

    def _ruled(self, message: Message, route: Route, rule: Rule, trials: list[Trial], *, teach: bool) -> Outcome:
        if rule.format in (rules.RAW, rules.IGNORE):
            return () if rule.format == rules.RAW else IGNORED
        if message.properties is not None and any(
            row.read_before for row in self._signatures.named_by(message.properties)
        ):
            rule = rules.of_identity(rule)
        options = self._options if rule.zone is None else msgspec.structs.replace(self._options, zone=rule.zone)
        body = self._body(message.payload, message, route, 0, options)
        if rule.paths is not None:
            paths = rule.paths
            row = Format(name=rules.NAME, read=lambda message, body: rules.read_by_paths(rule, paths, message, body))
            outcome = self._guarded(row, message, body)
            trials.append(Trial(row.name, f"the rule for {rule.topic}", outcome))
        elif rule.format is not None:
            outcome = self._named_by_rule(message, rule, body, trials, teach=teach)
        else:
            outcome = self._tried(message, route, body, trials, teach=teach)
        if outcome is None or isinstance(outcome, Rejection):
            return outcome or Rejection(f"the rule for {rule.topic} says {rule.format}, which this is not")
        return rules.applied(rule, message.topic, outcome)

    def _named_by_rule(
        self, message: Message, rule: Rule, body: Body, trials: list[Trial], *, teach: bool
    ) -> Outcome | None:
        for row in self._all:
            if row.name == rule.format:
                outcome = self._guarded(row, message, body)
                trials.append(Trial(row.name, f"the rule for {rule.topic}", outcome))
                if outcome is not None:
                    self._teach(row, message, body, outcome, teach=teach)
                    return outcome
        return None

    def _tried(self, message: Message, route: Route, body: Body, trials: list[Trial], *, teach: bool) -> Outcome:
        tried: list[Format] = []
        for row, sign in self._candidates(message, body, route):
            if row in tried:
                continue
            tried.append(row)
            outcome = self._guarded(row, message, body)
            trials.append(Trial(row.name, sign, outcome))
            if outcome is not None:
                self._teach(row, message, body, outcome, teach=teach)
                return outcome
        return Rejection(f"no format fits: {body.text_fault or 'it is neither JSON nor text'}")

    def _body(self, payload: bytes, message: Message, route: Route, depth: int, options: Options | None = None) -> Body:
        options = options or self._options

        def read_inner(inner: bytes) -> Sequence[Event]:
            if depth >= MOST_INSIDE:
                raise Unreadable(f"packed more than {MOST_INSIDE} times")
            if len(inner) > options.unpacked_bytes:
                raise Unreadable(f"unpacks to more than {options.unpacked_bytes} bytes (unpacked_bytes)")
            unpacked = msgspec.structs.replace(message, payload=inner, properties=None)
            body = self._body(inner, unpacked, route, depth + 1, options)
            outcome = self._tried(unpacked, route, body, [], teach=False)
            if isinstance(outcome, Rejection):
                raise Unreadable(f"what is packed in it cannot be read: {outcome.reason}")
            return outcome

        return Body(payload, options, route.place, self._learned, read_inner)

    def _candidates(self, message: Message, body: Body, route: Route) -> Iterator[tuple[Format, str]]:
        """The rows to try, those first whose sign says most: properties, topic, lessons, content."""
        if message.properties is not None:
            yield from ((row, "the MQTT 5 properties") for row in self._signatures.named_by(message.properties))
        yield from ((row, "the topic") for row in route.rows)
        yield from (
            (row, "an earlier message about this topic")
            for row in self._by_lesson
            if self._learned.has(row.name, message.topic)
        )
        yield from self._signatures.in_content(body)
        yield from ((row, "nothing else fits") for row in GENERIC)

    def _guarded(self, row: Format, message: Message, body: Body) -> Outcome | None:
        """What one format makes of one message; whatever it raises costs this message a rejection, no more."""
        try:
            events = self._patience.read(row, message, body)
            if events is None or row in GENERIC:  # whose tests hold that what they give can be stored
                return events
            fault = unfit(events)
            return Rejection(f"the format gave what cannot be stored: {fault}", row.name) if fault else events
        except Unreadable as why:
            return Rejection(texts.shortened(str(why)), row.name)
        except (KeyboardInterrupt, SystemExit, CancelledError, GeneratorExit, TooSlow):
            raise  # too slow is the row in which this one was read
        except BaseException as fault:  # noqa: BLE001  a panic in a Rust extension is no Exception
            return Rejection(f"the format failed on this message: {_described(fault)}", row.name)

    def _teach(self, row: Format, message: Message, body: Body, outcome: Outcome, *, teach: bool) -> None:
        """Learn what the message says of those to come; a teacher that fails teaches nothing."""
        if not teach or row.teach is None or isinstance(outcome, Rejection):
            return
        try:
            for lesson in row.teach(message, body):
                self._learned.learn(row.name, lesson, message)
        except (KeyboardInterrupt, SystemExit, CancelledError, GeneratorExit):
            raise
        except BaseException:  # noqa: BLE001, S110  the message itself has been read; what it taught is in the message
            pass

    def _check_rules(self) -> None:
        known = {row.name for row in self._all} | {rules.RAW, rules.IGNORE}
        for rule in self._rules:
            if rule.format is not None and rule.format not in known:
                near = get_close_matches(rule.format, known, n=1) or ["json"]
                raise ValueError(
                    f"the rule for {rule.topic}: {rule.format!r} is no format, did you mean {near[0]!r}? "
                    "docs/formats.md has them all"
                )


def _described(fault: BaseException) -> str:
    # Not str(fault): that may be the failing library's code again.
    text = next((arg for arg in fault.args if type(arg) is str), "without a word")
    return texts.shortened(f"{type(fault).__name__}: {text}")
