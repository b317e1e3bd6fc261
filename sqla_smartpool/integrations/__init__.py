"""What a pool can be joined to; each module says which extra it needs."""
