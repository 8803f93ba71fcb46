"""What every package needs: the errors, files that are whole or not there, a quiet terminal."""
