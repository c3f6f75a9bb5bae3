"""Claims about lessons: one message teaches those after it, durably and within bounds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from gateway.formats import Format, Formats, Lesson, Options
from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.learned import RECENT_MESSAGES, Learned
from storage.event import Event, Fact, Lessons, Message, Outcome, Rejection, Reread
from tests.formats.messages import message


def read(sent: Message, body: Body) -> Sequence[Event] | None:
    """`birth/x` says the unit of `data/x`."""
    draft = Draft("toy", sent, body)
    if sent.topic.startswith("birth/"):
        return [draft.event(body.place.device or "", "birth")]
    unit = body.learned.get("toy", sent.topic)
    draft.put_value("value", float(sent.payload), unit if isinstance(unit, str) else None, source="learned")
    return [draft.event(body.place.scalar_device or "")]


def teach(sent: Message, body: Body) -> Iterator[Lesson]:
    if sent.topic.startswith("birth/"):
        topic = "data/" + sent.topic.removeprefix("birth/")
        yield Lesson(key=topic, value=body.text or None, topics=(topic,))


TOY = Format(name="toy", read=read, topics=("birth/+",), teach=teach, learned_topics=True)
BIRTH = message(b"Cel", "birth/x")
DATA = message(b"21.5", "data/x")


def units(outcome: Outcome) -> list[object]:
    assert not isinstance(outcome, Rejection)
    return [event.units for event in outcome]


def test_a_lesson_is_there_for_the_next_message() -> None:
    formats = Formats(specific=[TOY])
    assert units(formats.read_all([DATA, BIRTH, DATA])[2]) == [{"value": "Cel"}]


def test_a_message_read_again_knows_what_came_later() -> None:
    formats = Formats(specific=[TOY])
    assert units(formats.read(DATA)) == [None]
    formats.read(BIRTH)
    assert units(formats.read_again(DATA)) == [{"value": "Cel"}]


def test_lessons_are_taken_once_and_make_another_instance_as_wise() -> None:
    formats = Formats(specific=[TOY])
    formats.read(BIRTH)
    lessons = formats.take_lessons()
    assert lessons == Lessons((Fact("toy", "data/x", '"Cel"'),), (Reread("toy", ("data/x",), RECENT_MESSAGES),))
    assert formats.take_lessons() == Lessons()
    assert units(Formats(specific=[TOY], facts=lessons.facts).read(DATA)) == [{"value": "Cel"}]


def test_a_lesson_known_already_is_no_news_and_a_changed_one_spares_what_was_read() -> None:
    formats = Formats(specific=[TOY])
    formats.read_all([BIRTH, BIRTH])
    formats.take_lessons()
    formats.read(BIRTH)
    assert formats.take_lessons() == Lessons()
    formats.read(message(b"K", "birth/x"))
    assert formats.take_lessons().rereads == (Reread("toy", ("data/x",), RECENT_MESSAGES, provisional_only=True),)


def test_only_messages_before_the_ones_that_taught_are_read_again() -> None:
    formats = Formats(specific=[TOY])
    batch = [DATA, message(b"Cel", "birth/x"), DATA, message(b"K", "birth/y"), DATA]
    formats.read_all(batch)
    assert formats.take_lessons(batch).rereads == (Reread("toy", ("data/x", "data/y"), RECENT_MESSAGES, before=3),)


def test_between_two_births_of_one_batch_nothing_is_read_by_the_second() -> None:
    formats = Formats(specific=[TOY])
    batch = [DATA, message(b"Cel", "birth/x"), DATA, message(b"K", "birth/y"), message(b"s", "birth/x")]
    formats.read_all(batch)
    assert formats.take_lessons(batch).rereads == (
        Reread("toy", ("data/x",), RECENT_MESSAGES, before=1),
        Reread("toy", ("data/y",), RECENT_MESSAGES, before=3),
        Reread("toy", ("data/x",), RECENT_MESSAGES, provisional_only=True, before=4),
    )


def test_many_lessons_are_one_walk_over_the_log() -> None:
    def teach_many(_sent: Message, _body: Body) -> Iterator[Lesson]:
        yield from (Lesson(key=str(n), value=n, topics=(f"data/{n}",)) for n in range(100))

    formats = Formats(specific=[Format(name="toy", read=read, topics=("birth/+",), teach=teach_many)])
    formats.read(BIRTH)
    (reread,) = formats.take_lessons().rereads
    assert len(reread.topics) == 100


def test_a_reading_for_explanation_or_again_teaches_nothing() -> None:
    formats = Formats(specific=[TOY])
    formats.trials(BIRTH)
    formats.read_again(BIRTH)
    assert formats.take_lessons() == Lessons()


def test_forgetting_is_a_lesson_too() -> None:
    formats = Formats(specific=[TOY])
    formats.read_all([BIRTH, message(b"", "birth/x")])
    assert formats.take_lessons().facts[-1] == Fact("toy", "data/x", None)
    assert units(formats.read_again(message(b"1", "birth/y"))) == [None]


def test_over_the_bound_the_oldest_facts_go_and_the_log_is_told() -> None:
    learned = Learned(Options(facts=3))
    for n in range(5):
        learned.learn("toy", Lesson(key=str(n), value=n))
    assert [learned.get("toy", str(n)) for n in range(5)] == [None, None, 2, 3, 4]
    told = learned.take().facts
    assert [fact for fact in told if fact.value is None] == [Fact("toy", "0", None), Fact("toy", "1", None)]


def test_the_room_for_facts_is_bounded_and_one_fact_cannot_take_it_all() -> None:
    learned = Learned(Options(fact_bytes=1_000))
    assert not learned.learn("toy", Lesson(key="k", value="x" * 900))
    for n in range(20):
        learned.learn("toy", Lesson(key=str(n), value="x" * 100))
    assert sum(learned.has("toy", str(n)) for n in range(20)) == 9


@pytest.mark.parametrize("wrong", ["", "a/#/b", "a+", "a\0", "#b"])
def test_what_is_no_topic_filter_is_not_looked_for(wrong: str) -> None:
    learned = Learned(Options())
    learned.learn("toy", Lesson(key="k", value=1, topics=(wrong, "good/#")))
    assert learned.take().rereads == (Reread("toy", ("good/#",), RECENT_MESSAGES),)


def test_a_teacher_that_fails_costs_its_lesson_and_nothing_else() -> None:
    def fails(_sent: Message, _body: Body) -> Iterator[Lesson]:
        yield Lesson(key="a", value=1)
        raise RecursionError

    formats = Formats(specific=[Format(name="toy", read=read, topics=("birth/+",), teach=fails)])
    assert units(formats.read(BIRTH)) == [None]
    assert [fact.key for fact in formats.take_lessons().facts] == ["a"]


def test_what_is_too_long_to_be_kept_is_forgotten_in_the_log_as_well() -> None:
    learned = Learned(Options(fact_bytes=40))
    learned.learn("toy", Lesson(key="a", value="short"))
    learned.learn("toy", Lesson(key="a", value="x" * 50))
    learned.learn("toy", Lesson(key="b", value="x" * 50))
    assert learned.get("toy", "a") is None
    assert learned.take().facts == (Fact("toy", "a", '"short"'), Fact("toy", "a", None))


def test_a_batch_of_nothing_but_teachers_costs_no_more_than_each_of_them() -> None:
    """A gateway that connects for the first time is sent every retained description at once."""
    batch = [Message(f"birth/{n}", b"Cel", 1, retain=True, received_at=n) for n in range(20_000)]
    formats = Formats(specific=[TOY])
    formats.read_all(batch)
    started = time.process_time()
    (reread,) = formats.take_lessons(batch).rereads
    assert reread.before == len(batch) - 1
    assert time.process_time() - started < 2  # the teachers' places looked for one by one, it was eight seconds
