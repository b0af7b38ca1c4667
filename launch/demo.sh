#!/usr/bin/env bash
# Installs what is needed, then runs a main job on embedded phantoms.
# Usage: bash launch/demo.sh [--task segmentation|chest] [--root FOLDER]
#   segmentation (the default): a teacher, its pseudo masks, students with and without exclusion,
#       fine-tuning, a report. See configs/study/demo.yaml.
#   chest: classifiers of three hospitals, transfer learning against attention transfer from few
#       labels, a report. See configs/study/demo_chest.yaml.
# Run it again after an interruption: it goes on.
set -euo pipefail
task=segmentation
if [ "${1:-}" = "--task" ]; then
    task="${2:-}"
    shift "$(($# < 2 ? $# : 2))"
fi
case "$task" in
    segmentation) config=configs/study/demo.yaml ;;
    chest) config=configs/study/demo_chest.yaml ;;
    *)
        echo "demo.sh: --task is '$task', expected segmentation or chest" >&2
        exit 2
        ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec nakt study "$config" "$@"
