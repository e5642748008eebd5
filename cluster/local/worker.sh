#!/usr/bin/env bash
# A worker that joins a head, in the foreground; Ctrl-C takes it away again.
#
#   cluster/local/worker.sh 192.168.1.10                        all CPUs and GPUs of this machine
#   cluster/local/worker.sh 127.0.0.1 --num-cpus=2 --temp-dir=/tmp/second
#
# The head's token must lie in ~/.ray/auth_token here too. Every further worker on one machine needs
# a --temp-dir of its own: workers that share one delete each other's copy of a job's files.
set -euo pipefail

head=${1:?the address of the head, as in: worker.sh 192.168.1.10}
shift

export RAY_AUTH_MODE=token
exec ray start --block --disable-usage-stats --address="$head:${RAY_PORT:-6379}" "$@"
