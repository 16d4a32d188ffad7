"""The process beside each container: stdio, log driver, exit status. It outlives the daemon."""
