"""The container's health check: exit status 0 once the service is ready. Reads the same variables as the service."""

import os
import ssl
import sys
import urllib.request

scheme = "https" if os.environ.get("CIR_TLS_CERT") else "http"
usual = "8080" if "ENABLE_CUDA" in os.environ else "8000"  # as Weaviate's chart starts its own inference images
port = os.environ.get("CIR_PORT") or usual
if "://" in port:  # Kubernetes' own variable for a Service called cir, which the service does not read either
    port = usual
address = f"{scheme}://127.0.0.1:{port}/.well-known/ready"
context = ssl.create_default_context()
context.check_hostname = False  # the service is asked at 127.0.0.1, which no certificate names
context.verify_mode = ssl.CERT_NONE
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
try:
    opener.open(address, timeout=4).close()
except OSError as error:
    sys.exit(f"not ready: {error}")
