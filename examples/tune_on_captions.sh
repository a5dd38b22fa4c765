#!/usr/bin/env bash
# Tune a model on your own captions, and see on your own catalog whether it got better:
#   examples/tune_on_captions.sh catalog.txt qdrant://localhost:6333/shop lincir-vit-l
# The collection is one that the model made: cir-vectorizer sync products.csv --to qdrant://localhost:6333/shop --model lincir-vit-l
set -euo pipefail
captions=$1 collection=$2 model=$3 steps=${4:-}

cir-vectorizer train --captions "$captions" --model "$model" --out tuned-model ${steps:+--steps "$steps"}
cir-vectorizer evaluate catalog --in "$collection" --model "$model" --out report-before
cir-vectorizer evaluate catalog --in "$collection" --model tuned-model --out report-after
echo "open report-before/report.html and report-after/report.html side by side"
