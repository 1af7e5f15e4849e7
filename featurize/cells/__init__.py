"""Images cut into cells: nuclei and bodies found, a crop of each published, and a table of where it was."""
