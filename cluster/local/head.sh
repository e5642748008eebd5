#!/usr/bin/env bash
# The head of a cluster made by hand, in the foreground; Ctrl-C ends it.
#
#   cluster/local/head.sh                     for workers on this machine
#   cluster/local/head.sh 192.168.1.10        for workers that reach this machine at that address
#
# Ray's ports listen on all interfaces whatever the address, and ask for the token; only the
# dashboard's listens at the address alone.
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

# Ray's pages for Prometheus ask for no token and listen on all interfaces: they stay closed, unless
# told (-1 is no port).
export RAY_enable_metrics_collection="${RAY_enable_metrics_collection:-0}"
export AUTOSCALER_METRIC_PORT="${AUTOSCALER_METRIC_PORT:--1}"
export DASHBOARD_METRIC_PORT="${DASHBOARD_METRIC_PORT:--1}"

# Ray's processes here take the first range of ports that holds neither of the head's own.
ports="${RAY_PORT:-6379} ${RAY_DASHBOARD_PORT:-8265}"
for first in 10002 20002 30002; do
  last=$((first + 9997)) taken=
  for port in $ports; do
    if [[ ! $port =~ ^[1-9][0-9]{0,4}$ ]] || ((port == 10001 || port == 52365)); then
      echo "error: the head cannot listen at port $port: give a free one with RAY_PORT or" \
        "RAY_DASHBOARD_PORT that is neither 10001 nor 52365, which Ray uses itself" >&2
      exit 2
    fi
    if ((port >= first && port <= last)); then taken=$port; fi
  done
  if [[ -z $taken ]]; then break; fi
done
token=${RAY_AUTH_TOKEN_PATH:-${HOME:-}/.ray/auth_token}
[ ! -O "$token" ] || chmod go= "$token" # one that an earlier version has left open

exec ray start --head --block --disable-usage-stats \
  --node-ip-address="$address" --port="${RAY_PORT:-6379}" \
  --dashboard-host="$address" --dashboard-port="${RAY_DASHBOARD_PORT:-8265}" \
  --min-worker-port="$first" --max-worker-port="$last" "$@"
