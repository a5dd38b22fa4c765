"""`helm test`: the service is ready, and makes a vector of a text for whoever has a key."""

import os
from pathlib import Path

import httpx

headers = {}
if file := os.environ.get("KEYS_FILE"):
    lines = [line.strip() for line in Path(file).read_text().splitlines()]
    first = next(line for line in lines if line and not line.startswith("#"))
    headers["authorization"] = f"Bearer {first.split(':', 1)[-1]}"

# without verification, because the certificate names the public host, not the Service
with httpx.Client(base_url=os.environ["ADDRESS"], headers=headers, timeout=60, verify=False) as client:  # noqa: S501
    client.get("/.well-known/ready").raise_for_status()
    made = client.post("/vectorize", json={"texts": ["a red dress"], "images": []}).raise_for_status().json()
    models = client.get("/v1/models").raise_for_status().json()
print(f"ready: {models['data'][0]['full_name']} makes vectors of {len(made['textVectors'][0])} numbers")
