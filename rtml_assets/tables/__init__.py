"""The offline tables: Polars and Delta, no Dagster."""
