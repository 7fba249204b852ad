"""`python -m kling` is the `kling` command."""

from kling.client.command_line import main

if __name__ == "__main__":
    main()
