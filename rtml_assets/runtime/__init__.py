"""The processes of a project: the embedded Redis, and what keeps all of them running."""
