"""Pictures, tables and the stability of depth for the report stage, and the page `dvc plots show` draws them on."""
