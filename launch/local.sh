#!/usr/bin/env bash
# Trains on this machine and goes on by itself after a stop that saved (exit code 75): a time limit or SIGTERM.
# Usage: launch/local.sh [N] --config=configs/ring_moco.py [--workdir=runs/x] [--config.field=value ...]
#
# With N, the run is shared by N processes of one device each. They end together, with one exit code: if one of them
# dies, the others end too, and the same command goes on from the last checkpoint. It costs N times the memory of one
# process on a CPU; on accelerators, process i takes device i. JOB=evaluate launch/local.sh 2 ... starts another job.
set -um # -m: processes in the background would ignore Ctrl-C
job=mi_contrast.${JOB:-main}
count=1
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
  count=$1
  shift
fi

# Starts N processes and waits for them. Their common exit code is in `code`.
run_together() {
  local port pids=() deaths=0 i status
  port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])') || exit 1
  for ((i = 0; i < count; i++)); do
    JAX_LOCAL_DEVICE_IDS=${JAX_LOCAL_DEVICE_IDS:-$i} TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2} \
      python -m "$job" "$@" --coordinator="127.0.0.1:$port" --processes="$count" --process="$i" &
    pids+=($!)
  done
  trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM HUP
  trap 'kill -INT "${pids[@]}" 2>/dev/null' INT
  code=0
  for ((i = 0; i < count; i++)); do
    # A trap ends `wait` early, so it is repeated until the process is gone.
    while wait "${pids[$i]}"; status=$?; kill -0 "${pids[$i]}" 2>/dev/null; do :; done
    if [ "$status" -gt 130 ]; then # a signal ended it: kill -9, or JAX's runtime, which gives up when another is gone
      deaths=$((deaths + 1))
    elif [ "$status" -ne 0 ] && [ "$code" -eq 0 ]; then
      code=$status
    fi
  done
  trap - TERM HUP INT
  if [ "$deaths" -gt 0 ] && [ "$code" -eq 0 ]; then
    echo "mi_contrast: error: a process has died, so all have ended; the same command goes on from the last checkpoint" >&2
    code=1
  fi
}

while true; do
  if [ "$count" -eq 1 ]; then
    python -m "$job" "$@"
    code=$?
  else
    run_together "$@"
  fi
  [ "$code" -eq 75 ] || exit "$code"
  echo "stopped after saving; going on"
done
