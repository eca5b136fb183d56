#!/bin/bash
# What the real script does to its caller: a server in the background with a log of its own, extras unquoted,
# exit status 0 whether or not there is a server.
MODEL="$1"; TP="$2"; PORT="$3"
shift 3
LOG_FILE="${STANDIN_LOG:?}"
echo "launching $MODEL" | tee "$LOG_FILE"
python -m atom.entrypoints.openai_server --model "$MODEL" --kv_cache_dtype fp8 -tp "$TP" \
    --server-port "$PORT" $* >> "$LOG_FILE" 2>&1 &
echo "Server is ready! (a lie)"
exit "${STANDIN_EXIT:-0}"
