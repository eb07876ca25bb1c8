#!/bin/bash
# A job on the nodes of a Slurm job; from the folder where the log is to lie, with bbtune's environment activated:
#   BBTUNE_STORAGE=/shared/runs sbatch jobs/cluster/slurm.sh jobs/cluster/job.yaml
# This folder, the storage and the environment must be seen by all nodes. What is exported here goes along: MLFLOW_* too.
#SBATCH --job-name=bbtune
#SBATCH --output=bbtune-%j.log
#SBATCH --open-mode=append
# As many as are free, between these two; evaluators for which there is no room wait.
#SBATCH --nodes=1-4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
##SBATCH --gpus-per-node=1
#SBATCH --time=04:00:00
# Two minutes before the time is up the search ends at its last generation, and this job goes back into the queue.
#SBATCH --signal=B:USR1@120
# Pre-empted, or a node lost: back into the queue, too. Not --no-kill: Slurm would keep a job whose first node is lost,
# where this script runs, until its time is up.
#SBATCH --requeue
set -euo pipefail

job=${1:?expected a job file: sbatch jobs/cluster/slurm.sh JOB.yaml}
: "${BBTUNE_STORAGE:?expected the folder of the runs, seen by all nodes: BBTUNE_STORAGE=/shared/runs sbatch ...}"

# Whoever has the token can run code as this user: only the owner can read it, from its first moment on.
token=$PWD/.bbtune-$SLURM_JOB_ID.token
rm -f "$token"
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' >"$token")
unset RAY_AUTH_TOKEN # it would win over the file
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token
export RAY_USAGE_STATS_ENABLED=0
export RAY_worker_niceness=0 # evaluators are why the nodes are ours

scratch=/tmp/ray-$SLURM_JOB_ID # on each node; other users may have a /tmp/ray there
port=$((20000 + SLURM_JOB_ID % 10000))
address=$(python -c 'import ray.util; print(ray.util.get_node_ip_address())'):$port
node_options=(--block --num-cpus="$SLURM_CPUS_PER_TASK" --object-store-memory=$((200 << 20)) --temp-dir="$scratch")
# Any free ones: the node may run another job's cluster, too.
node_options+=(--min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0)
on_nodes=(srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0)

steps=()
coordinator=
reason=

stop() { # the search, not yet the cluster that it needs for ending
  reason=$1
  [ -z "$coordinator" ] || kill -TERM "$coordinator" 2>/dev/null || true
}

end_cluster() {
  [ ${#steps[@]} -eq 0 ] || kill -TERM "${steps[@]}" 2>/dev/null || true
  wait || true
  steps=()
  rm -f "$token"
}

trap 'stop time' USR1
trap 'stop asked' TERM INT
trap end_cluster EXIT

echo "head of the cluster: $address on $SLURMD_NODENAME, of $SLURM_JOB_NUM_NODES nodes"
"${on_nodes[@]}" --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" \
  ray start --head --port="$port" --include-dashboard=false "${node_options[@]}" &
steps+=($!)
for _ in {1..120}; do
  (: <"/dev/tcp/${address%:*}/$port") 2>/dev/null && break
  if ! kill -0 "${steps[0]}" 2>/dev/null; then
    echo "error: the head of the cluster has ended; what it said stands above" >&2
    exit 1
  fi
  sleep 1
done

others=$((SLURM_JOB_NUM_NODES - 1))
if [ "$others" -gt 0 ]; then
  "${on_nodes[@]}" --nodes="$others" --ntasks="$others" --exclude="$SLURMD_NODENAME" \
    ray start --address="$address" "${node_options[@]}" &
  steps+=($!)
fi

status=143
if [ -z "$reason" ]; then
  RAY_ADDRESS=$address python -m bbtune.coordinator "$job" &
  coordinator=$!
  [ -z "$reason" ] || stop "$reason" # told between the two lines above
  while kill -0 "$coordinator" 2>/dev/null; do
    wait "$coordinator" || true # a signal cuts it short
  done
  status=0
  wait "$coordinator" || status=$?
fi

if [ "$status" -eq 0 ]; then
  end_cluster
  "${on_nodes[@]}" --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" rm -rf "$scratch"
elif [ "$reason" = time ] && [ "$status" -gt 128 ]; then # cut off, not at fault
  echo "the time is up: back into the queue, where it goes on from its last generation"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
