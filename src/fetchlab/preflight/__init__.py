"""What a run will use, checked before it starts."""

#: Environment variable of a run that is granted so many cores and bound to none.
CORES = "FETCHLAB_CORES"
