#!/usr/bin/env bash
# Pins the images of compose.yaml and the Dockerfile to the digests that their tags have in the registry now, in place:
# postgres:16.10-bookworm becomes postgres:16.10-bookworm@sha256:…. Run it again for newer builds of the same tags.

source "$(dirname "${BASH_SOURCE[0]}")/compose.sh"

files=(compose.yaml Dockerfile)

images_in_use() {
    sed -nE 's/^ *image: +([^ ]+)$/\1/p; s/^ARG PYTHON_IMAGE=(.+)$/\1/p' "${files[@]}" | grep -v '^payments-ledger:' | sort -u
}

# All are looked up before anything is written.
images=()
pinned=()
while read -r image; do
    tag="${image%@*}"
    digest="$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$tag")"
    if [[ ! "$digest" =~ ^sha256:[0-9a-f]{64}$ ]]; then
        echo "The registry names no digest of $tag: $digest" >&2
        exit 1
    fi
    images+=("$image")
    pinned+=("$tag@$digest")
done < <(images_in_use)

for file in "${files[@]}"; do
    text="$(< "$file")"
    for index in "${!images[@]}"; do
        text="${text//"${images[index]}"/${pinned[index]}}"
    done
    printf '%s\n' "$text" > "$file"
done
printf '%s\n' "${pinned[@]}"
