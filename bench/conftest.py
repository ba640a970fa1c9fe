"""What pytest leaves alone here."""

# To look for doctests in a lesson would be to run it.
collect_ignore_glob = ["lessons/[0-9]*.py"]
