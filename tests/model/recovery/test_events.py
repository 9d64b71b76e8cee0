"""The run's events: whole lines only, and what they leave out."""

from model.recovery.events import Event, append_event, current_skips, json_number, read_events

SPIKE = Event(kind="loss spike", step=3, value=9.5, limit=4.0, action="skip", places=(16, 24), skips=((16, 24),))


def test_events_come_back_and_an_unfinished_line_is_ignored(tmp_path) -> None:
    assert read_events(tmp_path) == []
    append_event(tmp_path, SPIKE)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"kind": "loss sp')
    assert read_events(tmp_path) == [SPIKE]
    later = SPIKE.model_copy(update={"step": 7, "skips": None, "action": "report", "value": json_number(float("nan"))})
    append_event(tmp_path, later)
    assert read_events(tmp_path) == [SPIKE, later]
    assert later.value == "nan"


def test_the_last_event_that_skips_says_what_is_left_out() -> None:
    report = SPIKE.model_copy(update={"skips": None})
    assert current_skips([]) == ()
    assert current_skips([report, SPIKE, report]) == ((16, 24),)
