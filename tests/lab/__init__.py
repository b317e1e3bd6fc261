"""Real database servers for the tests: children of the test process."""
