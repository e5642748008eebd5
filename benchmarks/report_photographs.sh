#!/usr/bin/env bash
# The patch set of the long runs: 131 photographs of Debian's gcompris-qt-data, 600 points each.
#
#   benchmarks/report_photographs.sh SCRIPT STORE [WORKERS]
#
# SCRIPT is photos_gcompris.py, which takes the photographs out of the package; STORE is the file to
# write (2.6 GB). Needs apt-get with a Debian 12 source; no picture is kept.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
script="$(realpath "$1")" store="$(realpath -m "$2")" workers="${3:-1}"
python="$here/../.venv/bin/python"
export PYTHONPATH="$here/.." OMP_NUM_THREADS=1
draft="$(mktemp -d "$(dirname "$store")/photographs.XXXX")"
trap 'rm -rf "$draft"' EXIT
cd "$draft"
apt-get download gcompris-qt-data=3.1-2
dpkg-deb -x gcompris-qt-data_*.deb package
"$python" "$script" package photographs
nice -n 15 "$python" -m hpsearch data photos photographs --output all.arrow --points 600 \
    --workers "$workers"
nice -n 15 "$python" "$here/photograph_scenes.py" all.arrow "$store"
