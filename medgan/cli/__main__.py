"""``python -m medgan.cli``."""

from medgan.cli import main

if __name__ == "__main__":
    main()
