#!/usr/bin/env bash
# Write search.sbatch and heterogeneous.sbatch again after a change of hpsearch/execution/slurm_job.sh.
set -euo pipefail
cd "$(dirname "$0")"
common='#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --output=hpsearch-%j.log
# Lines for your cluster: module load ..., export PATH=.../hpsearch/.venv/bin:$PATH
'
{
  cat <<'HEAD'
#!/usr/bin/env bash
# A search on two nodes with a GPU each; `hpsearch submit --slurm` writes such a file by itself.
#
#   sbatch --account=LAB cluster/slurm/search.sbatch full search_spaces/full.py --trials 200
#SBATCH --job-name=hpsearch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --gres=gpu:1
#SBATCH --time=12:00:00
HEAD
  printf '%s\n' "$common"
  cat ../../hpsearch/execution/slurm_job.sh
} >search.sbatch
{
  cat <<'HEAD'
#!/usr/bin/env bash
# A heterogeneous job: the driver on CPUs without trials of its own, trials on nodes with GPUs.
#
#   sbatch --account=LAB cluster/slurm/heterogeneous.sbatch full search_spaces/full.py --trials 200
#SBATCH --job-name=hpsearch
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=12:00:00
HEAD
  printf '%s' "$common"
  cat <<'HEAD'
#SBATCH hetjob
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --gres=gpu:1

HEAD
  cat ../../hpsearch/execution/slurm_job.sh
} >heterogeneous.sbatch
