"""The HTML template of `dvc plots show`, with the chart library inlined; DVC's own template loads it from the network.

Run: python -m pipeline.reporting.page OUTPUT.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

import vl_convert

from pipeline.core.errors import UserError
from pipeline.core.files import write_text
from pipeline.core.runtime import run_main

# DVC replaces these by plain text substitution. `{scripts}`, tags that load from the network, is omitted on purpose.
PLACEHOLDERS = ("{refresh_tag}", "{plot_divs}")

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>D-STM plots</title>
<style>
body { font-family: sans-serif; margin: 2em; }
img { max-width: 100%; }
table { border-spacing: 1em; }
</style>
<script>
@bundle@
</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def build_page(bundle: str) -> str:
    """Put a script that defines `vegaEmbed` into the template.

    Args:
        bundle: JavaScript source.

    Returns:
        The template, with each of `PLACEHOLDERS` once.

    Raises:
        UserError: the script would close the script tag, or DVC's substitution would change it.
    """
    for forbidden in ("</script", "{scripts}", *PLACEHOLDERS):
        if forbidden in bundle:
            raise UserError(
                f"the vega bundle contains {forbidden!r}; expected none; install the versions of requirements.txt"
            )
    return _PAGE.replace("@bundle@", bundle)


def main() -> None:
    """Write the template to the path given on the command line."""
    parser = argparse.ArgumentParser(description="Write the offline HTML template of `dvc plots show`.")
    parser.add_argument("output", type=Path, help="the path in plots.html_template of .dvc/config")
    write_text(parser.parse_args().output, build_page(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
