"""The commands of the command line, one file each: options, then calls into the library."""
