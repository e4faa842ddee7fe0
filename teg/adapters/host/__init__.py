"""The machine we run on: power, disk, the process itself, and operators' commands."""
