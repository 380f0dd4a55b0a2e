#!/usr/bin/env bash
# Trains and scores a detector on an exported backbone, with the backbone's own pixels and width. Not run here.
# Usage: DETECTRON2=~/detectron2 launch/detectron2/run.sh out/detectron2 coco_mask_R_50_FPN_tuned_1x runs/coco
#            [--num-gpus 8] [--resume] [SOLVER.BASE_LR 0.01 ...]
# out/detectron2 is what `python -m mi_contrast.export --format=detectron2 --workdir=out` wrote. The *_C4_* configs need
# MoCo's detection/train_net.py, which adds their extra norm: TRAIN_NET=~/moco/detection/train_net.py.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
export_folder="$1" name="$2" output="$3"
shift 3
here="$(cd "$(dirname "$0")" && pwd)"
config="$here/$name.yaml"
[ -f "$config" ] || { echo "no config $name; one of: $(cd "$here" && ls ./*_*x.yaml ./*k.yaml | tr '\n' ' ')" >&2; exit 2; }
[ -f "$export_folder/manifest.json" ] || { echo "$export_folder has no manifest.json" >&2; exit 2; }
case "$name" in
  *_C4_*) train="${TRAIN_NET:?give TRAIN_NET=.../moco/detection/train_net.py, which has Res5ROIHeadsExtraNorm}" ;;
  *) train="${TRAIN_NET:-${DETECTRON2:?give DETECTRON2=its checkout}/tools/train_net.py}" ;;
esac
mapfile -t own < <(python3 - "$export_folder" "$name" <<'PYTHON'
import json, os, re, sys
folder, name = sys.argv[1:]
own = json.load(open(os.path.join(folder, "manifest.json")))["config_of_detectron2"]
depth = int(re.search(r"_R_(\d+)_", name)[1])
if own["MODEL.RESNETS.DEPTH"] != depth:
    sys.exit(f"{name} is for a ResNet-{depth}, {folder} holds a ResNet-{own['MODEL.RESNETS.DEPTH']}")
own["MODEL.WEIGHTS"] = os.path.abspath(os.path.join(folder, own["MODEL.WEIGHTS"]))
for key, value in own.items():
    print(key, value if isinstance(value, str) else json.dumps(value).replace("false", "False"), sep="\n")
PYTHON
)
[ ${#own[@]} -gt 0 ] || exit 2
flags=() more=()
while [ $# -gt 0 ]; do
  case "$1" in
    --resume | --eval-only) flags+=("$1"); shift ;;
    --*) flags+=("$1" "$2"); shift 2 ;;
    *) more+=("$1"); shift ;;
  esac
done
exec python3 "$train" --config-file "$config" "${flags[@]}" OUTPUT_DIR "$output" "${own[@]}" "${more[@]}"
