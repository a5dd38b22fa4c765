"""The page to try composed search on, its files and its thumbnails."""
