#!/bin/sh
# Installs what the service depends on into /opt/cir, and leaves nothing else behind: a step of the Dockerfile.
#   install.sh [INDEX]        INDEX: where torch comes from; pip's own index if empty or left out
set -eu
folder=$(mktemp -d)
cp "$(dirname "$0")"/* "$folder"
cd "$folder"
# the folders of the wheel's packages without their code, because only the lists of dependencies are wanted yet
sed -n '/targets.wheel/,/^]/s/^ *"\(.*\)",$/\1/p' pyproject.toml | xargs mkdir -p
touch README.md LICENSE

python3 -m venv /opt/cir
install() {
    /opt/cir/bin/pip install --no-cache-dir --constraint constraints.txt "$@"
}
if [ -n "${1:-}" ]; then
    install --index-url "$1" "torch>=2.4" "torchvision>=0.19"
fi
# pi-heif reads HEIC like pillow-heif, whose wheels bring an encoder under the GPL
install ".[serve,qdrant,weaviate,otel]" "pi-heif>=1.0"
# triton writes programs for GPUs, for which it needs a C compiler, and the image has none
/opt/cir/bin/pip uninstall --yes cir-vectorizer triton pip
python3 slim.py /opt/cir/lib/python3*/site-packages
cd /
rm -r "$folder"
