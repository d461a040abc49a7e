"""Pictures and tables for the report stage, and the page `dvc plots show` draws them on."""
