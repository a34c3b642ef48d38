//! The `killstream` command.

fn main() {}
