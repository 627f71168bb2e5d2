"""What a process lays upon itself before it touches a stranger's files: standard library only, Linux first."""
