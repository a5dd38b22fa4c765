"""Pictures and masks from bytes, files and URLs, checked, upright and RGB; and the guarded fetcher."""
