#!/usr/bin/env bash
# A worker that joins a head, in the foreground; Ctrl-C takes it away again, once its trials have
# saved themselves, and a second Ctrl-C at once.
#
#   cluster/local/worker.sh 192.168.1.10                        all CPUs and GPUs of this machine
#   cluster/local/worker.sh 127.0.0.1 --num-cpus=2 --temp-dir=/tmp/second
#
# The head's token must lie in ~/.ray/auth_token here too. Every further worker on one machine needs
# a --temp-dir of its own: workers that share one delete each other's copy of a job's files.
set -euo pipefail
umask 077 # what trials write is for nobody else to read

head=${1:?the address of the head, as in: worker.sh 192.168.1.10}
shift

export RAY_AUTH_MODE=token
export RAY_enable_metrics_collection="${RAY_enable_metrics_collection:-0}" # as on the head
# In a process group of its own: the terminal's Ctrl-C would end its trials with it.
set -m
ray start --block --disable-usage-stats --address="$head:${RAY_PORT:-6379}" "$@" &
worker=$!

# On SIGTERM Ray tells the head, waits at most 30 s until the trials here have left, and ends.
leave() {
  trap 'kill -INT "$worker"' INT TERM HUP
  echo "waits until trials have saved themselves; Ctrl-C ends at once" >&2
  kill -TERM "$worker"
}
trap leave INT TERM HUP

while :; do # a signal ends `wait`, not the worker
  status=0
  wait "$worker" || status=$?
  kill -0 "$worker" 2>/dev/null || exit "$status"
done
