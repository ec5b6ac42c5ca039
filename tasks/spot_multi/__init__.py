"""Task spot_multi: run a job that may not be late on spot instances of several regions."""
