"""Pictures, tables and the stability of depth for the report stage, and the HTML page of `dvc plots show`."""
