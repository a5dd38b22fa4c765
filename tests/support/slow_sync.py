"""`cir-vectorizer sync` with a slowed model, so that a test can stop it half way.

Arguments: FOLDER ADDRESS REPORT BATCH_SIZE.
"""

import signal
import sys
import time

from cir_vectorizer.cli import main
from cir_vectorizer.models import Vectorizer

if __name__ == "__main__":
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # restored, because a shell's background jobs ignore Ctrl-C
    embed = Vectorizer.embed_pixels
    Vectorizer.embed_pixels = lambda self, pixels: (time.sleep(0.4), embed(self, pixels))[1]
    folder, address, report, batch_size = sys.argv[1:]
    main(["sync", folder, "--to", address, "--report", report, "--batch-size", batch_size])
