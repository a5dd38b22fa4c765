#!/usr/bin/env bash
# Composed search with curl and a service that serves a collection:
#   cir-vectorizer serve --model my-model --collection qdrant:index/shop
#   examples/curl.sh dress.jpg "is red"
set -euo pipefail
service=${CIR_URL:-http://localhost:8000}
picture=$1
text=$(printf '%s' "$2" | sed 's/[\\"]/\\&/g') # as JSON writes it
headers=(--header 'content-type: application/json')
if [ -n "${CIR_API_KEY:-}" ]; then headers+=(--header "authorization: Bearer $CIR_API_KEY"); fi

# A picture is too long for a command line, so the body comes from a pipe.
{
    printf '{"limit": 5, "query": {"text": "%s", "image": "' "$text"
    base64 <"$picture" | tr -d '\n'
    printf '"}}'
} | curl --silent --show-error --fail-with-body "${headers[@]}" --data-binary @- "$service/v1/search"
echo
