"""Work in a process of its own ends within its time and memory, and what goes wrong there is one line here."""

import multiprocessing
import time

import bounded_work
import pytest
from neurt.bounded_process import prepare, run_bounded

GIGABYTE = 10**9


@pytest.fixture(scope="module", autouse=True)
def prepared():
    prepare("neurt.bounded_process")


@pytest.fixture(autouse=True)
def nobody_left():
    yield
    assert multiprocessing.active_children() == []


def message(work, *arguments, seconds=60.0, memory=GIGABYTE):
    with pytest.raises(ValueError) as caught:
        list(run_bounded(work, *arguments, seconds=seconds, memory=memory))
    return str(caught.value)


def test_texts_come_back_as_they_are():
    texts = ["", "é", "a\n" * 10**6]
    assert list(run_bounded(bounded_work.ends_well, *texts, seconds=60, memory=GIGABYTE)) == texts


def test_too_much_time_ends_it():
    start = time.monotonic()
    assert (
        message(bounded_work.endless, seconds=1) == "this took over 1 second, the most it may; try a shorter recording"
    )
    assert time.monotonic() - start < 15


def test_too_much_memory_ends_it_and_what_came_before_stays():
    texts = run_bounded(bounded_work.too_much, seconds=60, memory=GIGABYTE // 2)
    assert next(texts) == "first"
    with pytest.raises(ValueError, match="this needs over 500.0 MB of memory, the most it may"):
        next(texts)


def test_a_crash_ends_it_alone():
    assert (
        message(bounded_work.crash) == "this ended the program that read the file, which may be damaged; try another"
    )


def test_a_refusal_is_passed_on():
    assert message(bounded_work.refuse) == "expected better"


def test_a_mistake_of_ours_is_no_trace_for_the_visitor(capsys):
    assert message(bounded_work.fail) == "this failed, and not by your fault; please tell who runs this page"
    assert "KeyError: 'nothing'" in capsys.readouterr().err


def test_whoever_stops_listening_stops_the_work():
    texts = run_bounded(bounded_work.too_much, seconds=60, memory=GIGABYTE)
    next(texts)
    texts.close()
