#!/usr/bin/env bash
# Installs what is needed, then runs the main job on embedded phantoms: a teacher, its pseudo
# masks, students with and without exclusion, fine-tuning, a report. See configs/pipeline/demo.yaml.
# Usage: bash launch/demo.sh [--root FOLDER]     Run it again after an interruption: it goes on.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec nakt pipeline --config configs/pipeline/demo.yaml "$@"
