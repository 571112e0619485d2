"""The offline half of the platform: tables, Dagster, the feature store, the `rtml` command. Imports nothing."""
