"""The page to try composed search, its files and its thumbnails."""
