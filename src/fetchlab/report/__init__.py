"""Read run folders, and say what they show: curves, tables, verdicts, one page."""
