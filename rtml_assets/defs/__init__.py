"""What Dagster shows and runs, generated from the registry; the work itself is done in `tables/`."""
