"""``python -m lazyvol`` is the command ``lazyvol``."""

from lazyvol.cli import main

if __name__ == "__main__":
    main()
