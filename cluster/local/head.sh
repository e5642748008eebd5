#!/usr/bin/env bash
# The head of a cluster made by hand, in the foreground; Ctrl-C ends it.
#
#   cluster/local/head.sh                     for workers on this machine
#   cluster/local/head.sh 192.168.1.10        for workers that reach this machine at that address
#
# What follows the address goes to `ray start`: head.sh 127.0.0.1 --num-cpus=2
set -euo pipefail
umask 077 # the token, and whatever else is written, is for nobody else to read

address=${1:-127.0.0.1}
shift || true

# Whoever reaches the ports of Ray can run any code here, so a token is asked for, and it is said
# outright: unless told, `ray start` goes on without one where it finds none.
export RAY_AUTH_MODE=token
ray get-auth-token --generate >/dev/null # into ~/.ray/auth_token, unless one is there

token=${RAY_AUTH_TOKEN_PATH:-${HOME:-}/.ray/auth_token}
[ ! -O "$token" ] || chmod go= "$token" # one that an earlier version has left open

exec ray start --head --block --disable-usage-stats \
  --node-ip-address="$address" --port="${RAY_PORT:-6379}" \
  --dashboard-host="$address" --dashboard-port="${RAY_DASHBOARD_PORT:-8265}" "$@"
