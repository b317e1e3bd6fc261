"""Ways to look at a pool from outside; each needs the extra of its name."""
