"""What the pool can be joined to: each module needs the extra of its name, or nothing."""
