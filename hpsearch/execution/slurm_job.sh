# A search as one Slurm job: a Ray cluster of its own on the job's nodes, the driver on the first.
# Arguments: the name of the search, its space, and options of `hpsearch search`.
#
#   HPSEARCH_HOME      home (~/hpsearch): a folder, which the first node must see again after a
#                      requeue, or s3://BUCKET/PREFIX, with the credentials in the environment
#   HPSEARCH_IMAGE     Apptainer image that holds hpsearch; without one, what is in PATH
#   HPSEARCH_RESTARTS  largest number of requeues at the time limit (100)
#
# Port and token are new in each start, so jobs that share a node do not meet. `ray symmetric-run`
# is not used: it refuses a node on which another Ray of this user runs, and ends with `ray stop`.
set -uo pipefail
umask 077

name=${1:?the name of the search, then its space}
shift
job=${SLURM_JOB_ID:?submit this file with sbatch}
export HPSEARCH_HOME=${HPSEARCH_HOME:-$HOME/hpsearch}
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1
export RAY_enable_metrics_collection=0 AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
unset RAY_ADDRESS RAY_API_SERVER_ADDRESS HPSEARCH_ADDRESS # of another cluster
case $HPSEARCH_HOME in *://*) is_folder= ;; *) is_folder=yes ;; esac
if [ "$is_folder" ]; then mkdir -p "$HPSEARCH_HOME/slurm/$name" || exit 1; fi # Apptainer binds
if [ -n "${HPSEARCH_CACHE:-}" ]; then mkdir -p "$HPSEARCH_CACHE" || exit 1; fi # what is there

exec_in_image() { # in the background: the process that `$!` names is then the command's own
  if [ -n "${HPSEARCH_IMAGE:-}" ]; then
    local folders=/tmp,/var/tmp${HPSEARCH_CACHE:+,$HPSEARCH_CACHE}
    case $HPSEARCH_HOME in *://*) ;; *) folders=$HPSEARCH_HOME,$folders ;; esac
    exec apptainer exec --nv --bind "$folders" "$HPSEARCH_IMAGE" "$@"
  fi
  exec "$@"
}
in_image() { (exec_in_image "$@"); }

# Slurm sends SIGTERM to all processes of a job at once; Ray must outlive it until trials have saved.
keep_on_term='import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.execvp(sys.argv[1], sys.argv[1:])'
export keep_on_term

address_of_this_node() { # as Slurm's own processes reach it
  local address
  address=$(scontrol show node "$SLURMD_NODENAME" 2>/dev/null | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
  getent ahostsv4 "${address:-$(hostname)}" | awk 'NR == 1 { print $1 }'
}

new_folder() { # a /tmp of the job's own goes with scancel, while trials still save
  local root=/tmp
  if awk '$5 == "/tmp" && $4 != "/" { own = 1 } END { exit !own }' /proc/self/mountinfo &&
    [ -w /var/tmp ]; then root=/var/tmp; fi
  mktemp -d "$root/hp.XXXXXX"
}

start_ray() { # options of `ray start`; a temporary folder of its own, removed at the end
  local folder memory store options=()
  folder=${head_folder:-$(new_folder)}
  trap 'rm -rf "$folder"' EXIT
  trap : TERM # else this shell ends, and removes the folder, while Ray still lets trials save
  memory=${SLURM_MEM_PER_NODE:-0}
  if [ "$memory" -eq 0 ]; then
    memory=$((${SLURM_MEM_PER_CPU:-0} * SLURM_CPUS_ON_NODE))
  fi
  if [ "$memory" -gt 0 ]; then # Ray would take its shares of the whole machine's memory
    store=$((memory * 3 / 10))
    free=$(df --output=avail --block-size=1M /dev/shm 2>/dev/null | tail -n 1)
    if [ "${free:-0}" -gt 100 ]; then
      if [ "$store" -gt $((free * 8 / 10)) ]; then store=$((free * 8 / 10)); fi
    elif [ "$store" -gt 9000 ]; then # in the temporary folder, where Ray takes no larger one
      store=9000
    fi
    if [ "$store" -lt 80 ]; then store=80; fi
    options+=("--memory=$(((memory - store) * 1048576))" "--object-store-memory=$((store * 1048576))")
  fi
  in_image python -c "$keep_on_term" ray start --block --disable-usage-stats \
    --temp-dir="$folder" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" "${options[@]}" "$@" >"$folder/log" 2>&1
  status=$?
  tail -n 20 "$folder/log" | sed "s/^/$SLURMD_NODENAME: /"
  return "$status"
}

start_worker() { # HOST:PORT of the head
  start_ray --address="$1" --node-ip-address="$(address_of_this_node)" --num-cpus="$SLURM_CPUS_ON_NODE"
}
export -f exec_in_image in_image address_of_this_node new_folder start_ray start_worker

keep_worker() { # a node, and options of srun: a cancelled or killed worker is started again
  local node=$1
  shift
  for _ in $(seq 20); do
    "${worker_variables[@]}" srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" "$@" \
      bash -c "start_worker $head" </dev/null
    sleep 10
  done
}

free_ports() {
  in_image python -c 'import socket
sockets = [socket.create_server(("", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))'
}

has_begun() { # in an object store: once no other process writes there; the job ends if it is away
  if [ "$is_folder" ]; then
    [ -e "$HPSEARCH_HOME/searches/$name/search.json" ]
    return
  fi
  in_image python -c 'import sys
from hpsearch.errors import UserError
from hpsearch.execution.slurm import is_begun
try:
    sys.exit(0 if is_begun(*sys.argv[1:]) else 3)
except UserError as error:
    sys.exit(f"error: {error}")' "$HPSEARCH_HOME" "$name"
  case $? in 0) return 0 ;; 3) return 1 ;; *) echo "hpsearch ended with code 2" && exit 2 ;; esac
}

nodes() { scontrol show hostnames "$1"; }
end_all() { # the last words of the job: whatever is left of it
  local left
  left=$(jobs -p)
  [ -z "$left" ] || kill -TERM $left 2>/dev/null
  [ -z "${head_group:-}" ] || kill -KILL -- "-$head_group" 2>/dev/null
  rm -rf "${space_folder:-}" "${head_folder:-}"
}
trap end_all EXIT

# Before the time limit the batch shell alone gets SIGUSR1. SIGTERM, which comes with scancel, requeue,
# preemption and the limit itself, reaches this shell alone too where Slurm tracks processes by cgroup,
# and otherwise the driver as well, which takes two of them within some seconds for one.
driver= asked=
trap 'came=yes asked=usr1; [ -z "$driver" ] || kill -TERM "$driver"' USR1
trap 'came=yes asked=${asked:-term}; [ -z "$driver" ] || kill -TERM "$driver"' TERM

# A space that was sent along: it does not change if its file does.
if [ -n "${space_archive:-}" ]; then
  space_folder=$(new_folder)
  base64 -d <<<"$space_archive" | tar -xz -C "$space_folder"
  cd "$space_folder" || exit 1
fi

# The nodes of the trials: all; in a heterogeneous job, those of its second part.
here=$(address_of_this_node)
cpus=$SLURM_CPUS_ON_NODE options=() worker_variables=(env)
cpus_per_task=${SLURM_CPUS_PER_TASK:-}
if [ "${SLURM_HET_SIZE:-1}" -gt 1 ]; then
  workers=$(nodes "$SLURM_JOB_NODELIST_HET_GROUP_1") cpus=0 options=(--het-group=1)
  cpus_per_task=${SLURM_CPUS_PER_TASK_HET_GROUP_1:-}
  # Without a suffix these are of the first part; srun reads them, and so does start_ray.
  worker_variables+=(-u SLURM_MEM_PER_NODE -u SLURM_MEM_PER_CPU)
  for variable in SLURM_MEM_PER_NODE SLURM_MEM_PER_CPU; do
    value=${variable}_HET_GROUP_1
    if [ -n "${!value:-}" ]; then worker_variables+=("$variable=${!value}"); fi
  done
else
  workers=$(nodes "$SLURM_JOB_NODELIST" | grep -vx "$SLURMD_NODENAME")
fi
if [ -n "$cpus_per_task" ]; then options+=("--cpus-per-task=$cpus_per_task"); fi

for _ in 1 2 3; do # another process may take a port before Ray does; a busy node is too slow
  read -r port client < <(free_ports)
  head=$here:$port
  rm -rf "${head_folder:-}"
  head_folder=$(new_folder)
  set -m # a process group of its own, to end it by
  start_ray --head --node-ip-address="$here" --port="$port" --ray-client-server-port="$client" \
    --include-dashboard=false --num-cpus="$cpus" &
  head_group=$!
  disown # at its end bash would print the whole command, as killed
  set +m
  for _ in $(seq 120); do
    kill -0 "$head_group" 2>/dev/null || break
    if grep -q "Ray runtime started" "$head_folder/log" 2>/dev/null; then break 2; fi
    sleep 1
  done
  kill -KILL -- "-$head_group" 2>/dev/null
  head_group=
done
if [ -z "${head_group:-}" ]; then
  echo "error: Ray did not start on $SLURMD_NODENAME; its last lines are above" >&2
  exit 1
fi
if [ "$is_folder" ]; then # for workers of other jobs: workers.sbatch
  printf '%s %s\n' "$head" "$RAY_AUTH_TOKEN" >"$HPSEARCH_HOME/slurm/$name/head"
  echo "$job" >"$HPSEARCH_HOME/slurm/$name/job" # for `hpsearch status --slurm`
fi
for node in $workers; do keep_worker "$node" "${options[@]}" & done

# The search counts the nodes as it begins, so those of this job are waited for, two minutes at most.
in_image python -c 'import logging, sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
for _ in range(120):
    if sum(node["Alive"] for node in ray.nodes()) >= int(sys.argv[2]):
        break
    time.sleep(1)' "$head" $(($(wc -w <<<"$workers") + 1))

if has_begun; then
  exec_in_image hpsearch resume "$name" --address "$head" --home "$HPSEARCH_HOME" \
    ${resume_options[@]+"${resume_options[@]}"} &
else
  exec_in_image hpsearch search "$@" --name "$name" --address "$head" --home "$HPSEARCH_HOME" &
fi
driver=$!
if [ -n "$asked" ]; then kill -TERM "$driver"; fi
came=yes
while [ -n "$came" ]; do # a signal ends `wait` with a code of its own
  came=
  wait "$driver"
  code=$?
done
trap '' USR1 TERM
echo "hpsearch ended with code $code"
if [ "$asked" = usr1 ] && { [ "$code" -eq 130 ] || [ "$code" -eq 143 ]; }; then
  if [ "${SLURM_RESTART_COUNT:-0}" -lt "${HPSEARCH_RESTARTS:-100}" ]; then
    echo "the time is nearly over: the job is queued again, and will resume"
    end_all
    scontrol requeue "${SLURM_HET_JOB_ID:-$job}" && sleep 600
  fi
fi
exit "$code"
