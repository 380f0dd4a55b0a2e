#!/usr/bin/env bash
# Trains on this machine and goes on by itself after a stop that saved (exit code 75): a time limit or SIGTERM.
# Usage: launch/local.sh [N] --config=configs/ring_moco.py [--workdir=runs/x] [--config.field=value ...]
#
# With N, the run is shared by N processes of one device each: on accelerators process i takes device i, on a CPU it
# costs N times the memory of one process. They end together, with one exit code. If one of them dies, the others end
# too (code 1), and the same command resumes from the last checkpoint. Ctrl-C or a signal to this script stops the run
# for good. JOB=evaluate launch/local.sh N ... starts another job in the same way.
set -um # -m: without it, processes in the background would ignore Ctrl-C
job=mi_contrast.${JOB:-main} count=1 stopping=0
if [[ "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
  count=$1
  shift
fi

# Passes a signal on to all processes.
stop() {
  stopping=1
  kill "-$1" "${processes[@]}" 2>/dev/null
}

# Starts N processes and waits for them. Sets `code`: the exit code with which they all end, 1 if one has died.
run_together() {
  local port i status died=0
  port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])') || exit 1
  processes=() code=0
  for ((i = 0; i < count; i++)); do
    JAX_LOCAL_DEVICE_IDS=${JAX_LOCAL_DEVICE_IDS:-$i} \
      python -m "$job" "$@" --coordinator="127.0.0.1:$port" --processes="$count" --process="$i" &
    processes+=($!)
  done
  trap 'stop INT' INT
  trap 'stop TERM' TERM
  trap 'stop HUP' HUP
  for i in "${processes[@]}"; do
    while wait "$i" 2>/dev/null; status=$?; kill -0 "$i" 2>/dev/null; do :; done # a trap ends `wait` early
    if [ "$status" -gt 130 ]; then # by kill -9, or by JAX's runtime, which gives up when another process is gone
      died=1
    elif [ "$code" -eq 0 ]; then
      code=$status
    fi
  done
  trap - INT TERM HUP
  if [ "$died" -eq 1 ] && [ "$code" -eq 0 ]; then
    [ "$stopping" -eq 1 ] || echo "mi_contrast: error: a process has died, so all have ended; run the same command to resume from the last checkpoint" >&2
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
  [ "$code" -eq 75 ] && [ "$stopping" -eq 0 ] || exit "$code"
  echo "stopped after saving; going on"
done
