"""Where the data sets come from: what is published, how it is fetched, checked and brought in."""
