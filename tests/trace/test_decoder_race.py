"""Ranks are read in threads, and their first decoders are made at the same moment."""

from __future__ import annotations

import subprocess
import sys

# The pause stands for a thread switch while msgspec looks up the fields of an event's arguments: the description
# of the event itself is half built there, and already to be seen.
_PROGRAM = """
import threading
import time
from pytest_atomtrace.trace import events

def pause(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "get_class_annotations":
        if "Arguments" in frame.f_locals["obj"].__name__:
            time.sleep(0.2)

event = b'{"ph":"X","name":"gemm","cat":"kernel","pid":1,"tid":2,"ts":1,"dur":2,"args":{"stream":1,"correlation":5}}'
taken = []

def read():
    columns = events.Columns(events.decoder())
    columns.take(b"[" + event + b"]")
    taken.append(list(columns.gpu.link))

threading.setprofile(pause)
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
    time.sleep(0.02)
for thread in threads:
    thread.join()
assert taken == [[5]] * 8, taken
"""


def test_eight_threads_that_read_their_first_block_at_once_do_not_crash() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
