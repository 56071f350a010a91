//! The process policy of a golden value: which arguments, environment, user, directory and mounts.
