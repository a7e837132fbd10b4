"""Where results go: columns of scores in files that others read and write too."""
