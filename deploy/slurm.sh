#!/usr/bin/env bash
# Predictions → verdicts on the nodes of one allocation: sbatch deploy/slurm.sh PREDICTIONS TASKS RUN [options of swe-srl grade]
# Needs Ray 2.52 or later on all nodes, and what docs/cluster.md says of each. Submitted again with the same RUN, it goes on.
#SBATCH --job-name=swe-srl-grade
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --no-kill
#SBATCH --time=04:00:00
#SBATCH --output=swe-srl-grade-%j.log
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "slurm.sh: usage: sbatch $0 PREDICTIONS TASKS RUN [options of swe-srl grade]" >&2
    exit 2
fi
predictions=$1 tasks=$2 run=$3
shift 3

# Not `| head -n 1`: whoever writes on after its first line ends the script by SIGPIPE.
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*}
# A port of its own for each job: what another job has left behind on the node is not taken for ours.
address="$head:$((20000 + SLURM_JOB_ID % 10000))"

# A token in the home that the nodes share: without one, whoever reaches the head may run anything here.
export RAY_AUTH_MODE=token
ray get-auth-token --generate >/dev/null

# One Ray node on each, the command on the first; when it ends, all of them end. A node that fails ends nothing but itself.
srun --no-kill --kill-on-bad-exit=0 \
    ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus="$SLURM_CPUS_ON_NODE" --disable-usage-stats -- \
    swe-srl grade "$predictions" --tasks "$tasks" --out "$run" --executor ray --address "$address" "$@"
