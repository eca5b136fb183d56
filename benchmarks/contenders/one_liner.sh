#!/bin/sh
# What people type: zcat into json.load, then a sum by name. one_liner.sh PYTHON TRACE...
python=$1
shift
printf '['
comma=
for trace in "$@"; do
    printf '%s' "$comma"
    zcat "$trace" | "$python" -c '
import json, sys
kernels = {}
for event in json.load(sys.stdin)["traceEvents"]:
    if event.get("cat") == "kernel":
        entry = kernels.setdefault(event["name"], [0, 0])
        entry[0] += 1
        entry[1] += round(event["dur"] * 1000)
print(json.dumps({"kernels": kernels}))'
    comma=,
done
printf ']\n'
