#!/bin/sh
# Prints docker/kubernetes.yaml: the chart with one GPU for each replica, without what only Helm needs.
#   docker/kubernetes.sh > docker/kubernetes.yaml        (needs helm 3)
set -eu
chart=$(dirname "$0")/../charts/cir-vectorizer
cat <<'HEAD'
# Made by docker/kubernetes.sh from charts/cir-vectorizer, for clusters without Helm; docs/kubernetes.md explains it.
#   kubectl create secret generic cir-vectorizer --from-literal=api-keys=qdrant:SECRET
#   kubectl apply --filename docker/kubernetes.yaml
# Databases ask http://cir:SECRET@cir-vectorizer:8000/qdrant (or /m/<model> for Weaviate).
HEAD
helm template cir-vectorizer "$chart" --values "$chart/ci/gpu-values.yaml" --kube-version 1.30 --skip-tests |
    grep -v -E '^# Source: |app.kubernetes.io/(instance|managed-by|version): |helm.sh/chart: ' | sed 's/ *$//'
