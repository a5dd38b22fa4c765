#!/bin/sh
# Makes a base image without an image registry: Debian by debootstrap, imported into buildah's store.
#   docker/make_base.sh [NAME]        (as root; NAME is localhost/cir-base if left out)
set -eu
name=${1:-localhost/cir-base}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder/root"
rm -rf "$folder"/root/var/cache/apt/archives/*.deb "$folder"/root/var/lib/apt/lists/*
container=$(buildah from scratch)
buildah add --quiet "$container" "$folder/root" /
buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd /bin/bash "$container"
buildah commit --quiet "$container" "$name"
buildah rm "$container" >/dev/null
