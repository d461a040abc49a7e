"""The report page: one HTML file with the scores, curves, clips and pictures of a run, which needs no network."""
