#!/usr/bin/env bash
# Trains on this machine and goes on by itself after a stop that saved (exit code 75): a time limit or SIGTERM.
# Usage: launch/local.sh --config=configs/ring_moco.py [--workdir=runs/x] [--config.field=value ...]
set -u
while true; do
  python -m mi_contrast.main "$@"
  code=$?
  [ "$code" -eq 75 ] || exit "$code"
  echo "stopped after saving; going on"
done
