"""A server of the Model Context Protocol with one tool, `composed_search`: agents search a collection by picture and words."""
