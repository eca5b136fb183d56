"""A stand-in for the ATOM inference server, without a GPU and without ATOM.

``python -m pytest_atomtrace.simulator`` takes ATOM's server arguments and behaves as a client, a launcher
or a trace reader sees ATOM behave: argument rules, log lines, rank directories, a real process tree (API
server, EngineCore, one worker process per GPU), HTTP bodies and codes, a scheduler that batches the requests
it gets, and a kineto trace per rank that is written, compressed and unlinked in ATOM's order.

What is real: processes, sockets, signals, files, the schedule (which step ran with which batch), step labels,
and the structure of the trace. What is made up: text (words of a fixed list), token counts (one token per
blank-separated word of the prompt) and time. Kernel durations come from the model profiles in
``profiles/*.yaml``, each with its source; they say nothing about any GPU. Wall time is scaled: a step takes
about a millisecond whatever its profile says, while the trace's own clock follows the profile.

It shares no code with the rest of the package and is reached as a process only, so that a mistake in the
trace reader cannot prove itself right. It serves on 127.0.0.1 only. ATOM's command line stays ATOM's: seeds,
faults and mutations are set by environment variables alone, all listed in ``controls.py``
(``python -m pytest_atomtrace.simulator.controls`` prints the table).
"""

__all__: list[str] = []
