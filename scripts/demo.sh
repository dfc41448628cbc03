#!/usr/bin/env bash
# From nothing to a report: environment, install, a phantom stack, two MPI ranks. Usage: scripts/demo.sh [FOLDER]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install mpich
folder=${1:-$root/demo}
bin=$venv/bin

if [ ! -f "$folder/campaign.toml" ]; then
    echo "phantom: 32 slices of 768 x 768 pixels with known nanoparticles ..."
    "$bin/cytomill" phantom nanoparticles "$folder" --shape 32 768 768 --load 0.01 >/dev/null
fi
"$bin/mpirun" -n 2 "$bin/cytomill" run "$folder/campaign.toml"
"$bin/cytomill" status "$folder/results"
echo
echo "Open this report in a browser:"
echo "  $folder/results/report.html"
