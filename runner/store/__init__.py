"""The queue in SQL: schema, claims, checkpoints, ledger."""
