"""What every package needs: errors, atomic writing of files, a quiet terminal."""
