"""What was measured, each beside bare Tornado in the same run."""
