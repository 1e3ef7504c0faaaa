"""`python -m coordsvc` is the `coordsvc` command."""

from __future__ import annotations

from coordsvc.cli.main import main

if __name__ == "__main__":
    main()
