"""The main job: the same answer whatever carries the messages and whoever is killed, and nothing left behind."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from shmcomm import _core
from shmcomm._cli import _corpus, _links, _pipeline, _progress, _runs, main

WATCHDOG = 50


@pytest.fixture
def library(tmp_path):
    """A folder with text of many sizes, and what a demo has to leave out."""
    words = random.Random(20).choices(["alpha", "beta", "gamma", "x1", "naïve", "字", "_", "Ω", "no", "yes"], k=30_000)
    for number in range(40):
        (tmp_path / f"{number:02}.txt").write_text(" ".join(words[number * 100 : number * 700]), "utf-8")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "large.txt").write_text("\n".join(words) + "w" * 100_000, "utf-8")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait")
    (tmp_path / "binary.bin").write_bytes(b"\x7fELF\0\1\2")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    return tmp_path


def run_demo(*arguments):
    command = [sys.executable, "-m", "shmcomm", "demo", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=WATCHDOG)


def segments():
    return [segment["name"] for segment in _core.list_segments() if segment["name"].startswith("demo.")]


def test_every_run_gives_the_same_answer(library):
    done = run_demo(library, "--workers", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    found = report["input"]
    assert found["files"] == 43
    assert found["left_out"] == {"binary": 1, "unreadable": 2, "beyond_limit": 0}
    assert found["messages"] > found["files"]  # the large one went in pieces
    assert [run["correct"] for run in report["runs"]] == [True] * 4
    assert report["ok"] is True
    assert report["left_behind"] == []
    assert [run["label"] for run in report["transport"]] == ["shmcomm", "multiprocessing.Queue"]


def test_the_victim_really_dies_in_mid_run_and_one_worker_is_enough(library):
    report = json.loads(run_demo(library, "--workers", 1, "--json").stdout)
    run = report["runs"][-1]
    assert run["killed"]["exit_code"] == -signal.SIGKILL
    assert 0 < run["killed"]["after"] < report["input"]["messages"]
    assert run["correct"]


def test_text_report(library):
    done = run_demo(library, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "shmcomm, 1 of 2 killed" in done.stdout
    assert "SIGKILL" in done.stdout
    assert re.search(r"^All answers are right, nothing was left behind\.", done.stdout, re.MULTILINE)
    assert "Medians of 3 runs each" in done.stdout
    # Only the path may be longer than a small terminal is wide.
    assert max(len(line) for line in done.stdout.splitlines() if str(library) not in line) < 80


def test_no_kill(library):
    done = run_demo(library, "--no-kill", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "killed" not in done.stdout


def test_one_file_is_enough(library):
    done = run_demo(library / "latin.txt", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["input"]["files"] == report["input"]["messages"] == 1
    assert report["index"]["words"] == 3


def test_a_wrong_answer_is_told_and_is_exit_code_1(library, monkeypatch, capsys):
    def wrong(texts, on_file):
        index = honest(texts, on_file)
        index["alpha"][1] += 1
        return index

    honest = _corpus.index_here
    monkeypatch.setattr(_corpus, "index_here", wrong)
    assert main(["demo", str(library), "--workers", "1", "--no-kill"]) == 1
    said = capsys.readouterr().out
    assert "DIFFERENT" in said
    assert "WRONG: shmcomm" in said
    assert "All answers" not in said


def test_leftovers_are_told_and_are_exit_code_1(library, monkeypatch, capsys):
    monkeypatch.setattr(_runs.Demo, "_left_behind", lambda self: ["demo.1.tasks"])
    assert main(["demo", str(library / "latin.txt"), "--no-kill", "--workers", "1"]) == 1
    assert "LEFT BEHIND: demo.1.tasks" in capsys.readouterr().out


def test_the_smallest_input_is_told_in_the_singular(tmp_path):
    (tmp_path / "one.txt").write_text("word", "utf-8")
    done = run_demo(tmp_path, "--workers", 1, "--no-kill")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == f"1 file, 4 B of {tmp_path}"
    assert "A word index, by 1 worker: 1 entry of 1 word." in done.stdout
    assert "The same 1 message to a process" in done.stdout


def test_the_median_run_counts_and_one_wrong_answer_spoils_all():
    runs = [{"seconds": seconds, "correct": seconds != 9} for seconds in (5, 9, 7)]
    assert _runs._median(runs) == {"seconds": 7, "correct": False, "repeats": 3}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "x"], "x is not a number from 1 to 256"),
        (["--workers", "0"], "0 is not a number from 1 to 256"),
        (["--workers", "257"], "257 is not a number from 1 to 256"),
        (["--workers", "-1"], "-1 is not a number from 1 to 256"),
        (["--limit", "many"], "many is not a number of megabytes"),
        (["--limit", "nan"], "nan is not a number of megabytes"),
        (["--limit", "-1"], "-1 is not a number of megabytes"),
    ],
)
def test_options_that_are_no_numbers(capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main(["demo", *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_input_without_text_is_a_usage_error(library):
    for path in (library / "no-such-folder", library / "binary.bin", library / "fifo"):
        done = run_demo(path)
        assert (done.returncode, done.stdout) == (2, ""), path
        assert str(path) in done.stderr


def test_limit_leaves_out_what_goes_beyond(library):
    report = json.loads(run_demo(library, "--limit", "0.05", "--no-kill", "--json").stdout)
    assert report["input"]["left_out"]["beyond_limit"] > 0
    assert 0 < report["input"]["bytes"] <= 50_000


def in_session(session):
    """The processes of a session that are not zombies."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                state, _, _, its_session = file.read().rpartition(") ")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(entry))
    return found


def wait_until(condition, what):
    deadline = time.monotonic() + WATCHDOG
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def at_work():
    """Whether both workers of a demo have both their rings open, as their parent has."""
    rings = [found for found in _core.list_segments() if found["name"].startswith("demo.")]
    return len(rings) == 4 and all(len(ring["participants"]) == 2 for ring in rings)


@pytest.fixture
def running_demo():
    """A demo on the whole standard library, in a session of its own, with two workers at work."""
    command = [sys.executable, "-m", "shmcomm", "demo", "--limit", "0", "--workers", "2"]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: at_work() or process.poll() is not None, "the demo's workers are at work")
        assert process.poll() is None
        yield process
        wait_until(lambda: not in_session(process.pid), "every process of the demo ends")
        assert segments() == []
        assert "Traceback" not in process.stderr.read()
    finally:
        for pid in in_session(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_interrupted_it_leaves_nothing(running_demo):
    os.killpg(running_demo.pid, signal.SIGINT)  # to all of them, as a terminal does
    assert running_demo.wait(WATCHDOG) == 130
    assert running_demo.stdout.read() == ""
    assert running_demo.stderr.read() == "shmcomm: interrupted\n"


def test_killed_it_leaves_nothing(running_demo):
    running_demo.kill()
    assert running_demo.wait(WATCHDOG) == -signal.SIGKILL


def test_a_dying_queue_worker_is_an_error_not_a_hang(library):
    class Stillborn(_links.QueueLink):
        def __reduce__(self):  # what the child unpickles is its end
            return os._exit, (3,)

    jobs = _corpus.read(str(library), 1e9).messages
    with pytest.raises(RuntimeError, match="exit code 3"):
        _pipeline.build_index(jobs, lambda: Stillborn("x"), 2, _progress.Progress("", 1))


def test_pieces_keep_every_word_whole():
    generator = random.Random(5)
    for _ in range(300):
        alphabet = generator.choice(["ab ", "a", "aé字 \n.", "a_9 ", " "])
        text = "".join(generator.choices(alphabet, k=generator.randrange(2000)))
        cut = list(_corpus.pieces(text, limit=250))
        assert "".join(cut) == text
        assert max(map(len, cut)) <= 250
        index = _corpus.Index()
        for piece in cut:
            index.add(0, _corpus.count_words(piece))
        assert index == {word: {0: count} for word, count in _corpus.count_words(text).items()}


def test_board_counts_an_answer_once_and_gives_lost_jobs_out_first():
    alarms = []
    board = _pipeline.Board([(0, "a"), (0, "b"), (1, "c"), (1, "d")], lambda: alarms.append(board.done))
    board.start_clock()
    pending = set()
    assert board.take(pending) == (0, "a")
    assert board.take(pending) == (1, "b")
    board.answer(0, {"a": 1}, pending)
    board.answer(0, {"a": 1}, pending)
    assert (board.done, alarms, pending) == (1, [1], {1})
    assert board.give_back(pending) == 1
    assert board.take(pending) == (1, "b")
    for job, word in ((1, "b"), (2, "c"), (3, "d")):
        assert not board.finished
        board.answer(job, {word: 1}, pending)
    assert board.finished
    assert board.index == {"a": {0: 1}, "b": {0: 1}, "c": {1: 1}, "d": {1: 1}}
