#!/usr/bin/env bash
# Trains on a slice of Cloud TPUs, from its creation to its deletion.
# Usage: export NAME=ring ZONE=us-west4-a TYPE=v5litepod-16
#        launch/tpu_vm/slice.sh create                  # asks for the slice and waits until it is there
#        launch/tpu_vm/slice.sh install                 # installs the package on all workers
#        launch/tpu_vm/slice.sh run --config=configs/ring_moco.py:imagenet --workdir=/mnt/runs/x ...
#        launch/tpu_vm/slice.sh log [-f]                # what the first worker prints
#        launch/tpu_vm/slice.sh delete                  # ends the costs
#
# Needs: gcloud with a project and quota for TPUs; and for --workdir and data a bucket that is mounted on every worker:
#   with BUCKET=name, `install` mounts it at /mnt/runs by gcsfuse. JAX finds the workers by itself.
# Costs: the slice, from its creation to its deletion, whether it computes or not. SPOT=1 asks for spare capacity, which
#   is cheaper and may be taken away. `python -m mi_contrast.plan --topology=v5e:4x4` says beforehand whether it fits.
# After preemption: before maintenance all workers get SIGTERM, save at the same step, end with exit code 75, and the
#   loop of `run` starts them again. A spot slice that was taken away does not come back: `delete`, `create`, `install`
#   and `run` with the same flags go on from the last checkpoint in the bucket.
set -euo pipefail

NAME=${NAME:?set NAME, a name for the slice}
ZONE=${ZONE:?set ZONE, such as us-west4-a}
TYPE=${TYPE:-v5litepod-16}
VERSION=${VERSION:-v2-alpha-tpuv5-lite}
PACKAGE=${PACKAGE:-mi-contrast[tpu]}

on_workers() { # which workers, command
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker="$1" --command="$2"
}

case "${1:-}" in
  create)
    spot=()
    if [ -n "${SPOT:-}" ]; then spot=(--spot); fi
    gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
      --accelerator-type="$TYPE" --runtime-version="$VERSION" ${spot[@]+"${spot[@]}"}
    while true; do
      state=$(gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" --format='value(state.state)')
      echo "$(date +%T) $state"
      case "$state" in
        ACTIVE) break ;;
        FAILED | SUSPENDED) exit 1 ;;
      esac
      sleep "${POLL:-30}"
    done
    ;;
  install)
    on_workers all "python3 -m venv ~/env && ~/env/bin/pip install -q -U pip '$PACKAGE'"
    if [ -n "${BUCKET:-}" ]; then
      on_workers all "sudo mkdir -p /mnt/runs && sudo chown \$USER /mnt/runs && gcsfuse --implicit-dirs $BUCKET /mnt/runs"
    fi
    ;;
  run)
    shift
    flags=$(printf ' %q' "$@")
    loop="code=75; while [ \$code -eq 75 ]; do ~/env/bin/python -m mi_contrast.main$flags; code=\$?; done; echo ended with \$code"
    on_workers all "nohup bash -c $(printf '%q' "$loop") > ~/run.log 2>&1 < /dev/null &"
    ;;
  log)
    on_workers 0 "tail ${2:--n 50} ~/run.log"
    ;;
  delete)
    gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet
    ;;
  *)
    sed -n '2,/^#$/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
