"""`python -m swe_srl.cli` is `swe-srl`."""

from swe_srl.cli import main

main()
