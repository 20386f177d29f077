#!/bin/bash
# Trains in one worker on each of two nodes: sbatch slurm.sh. It has not run on a cluster.
#SBATCH --job-name=cvops
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
# The workers save a checkpoint before the time is over.
#SBATCH --signal=TERM@120
set -eu

source .venv/bin/activate
# The address of the first node, which runs this script.
export DMLC_PS_ROOT_URI=$(hostname -I | cut -d ' ' -f 1)
export DMLC_PS_ROOT_PORT=$((20000 + SLURM_JOB_ID % 20000))
export DMLC_NUM_WORKER=$SLURM_NTASKS
export DMLC_NUM_SERVER=1

# The scheduler and the server run here. They end after the workers, or with this script.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
DMLC_ROLE=scheduler python -m cvops.distributed &
DMLC_ROLE=server python -m cvops.distributed &

export DMLC_ROLE=worker
srun --kill-on-bad-exit=1 \
  cvops train set --epochs 50 --batch 32 --kvstore dist_sync --output run --resume
wait
