"""Studies: one question each, over networks, chips and searches."""
